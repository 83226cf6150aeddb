# R's curl package: one handle, and so one connection, for each URL. See README.md for the arguments.
suppressPackageStartupMessages(library(curl))
arguments <- commandArgs(trailingOnly = TRUE)
ca <- arguments[1]
requests <- as.integer(arguments[2])
big <- as.integer(arguments[3])
names <- strsplit(arguments[4], " ")[[1]]
urls <- arguments[-(1:4)]
body <- charToRaw(substr(strrep("0123456789abcdef", big %/% 16 + 1), 1, big))

ask <- function(handle, url, ..., headers = list()) {
  handle_reset(handle)
  handle_setopt(handle, cainfo = ca, http_version = 2L, ...)
  handle_setheaders(handle, .list = c(list(Expect = ""), headers))
  answer <- curl_fetch_memory(url, handle)
  if (answer$status_code != 200) stop(url, ": status ", answer$status_code)
}

for (url in urls) {
  handle <- new_handle()
  upload <- function() {
    if (big > 0) ask(handle, paste0(url, "/big"), post = TRUE, postfieldsize = big, postfields = body)
  }
  upload()
  for (name in names) {
    for (i in seq_len(requests)) {
      ask(handle, paste0(url, "/", name), headers = list(Authorization = paste("Bearer", Sys.getenv(name))))
    }
  }
  upload()
}
