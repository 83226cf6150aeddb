# net/http: one connection for each URL. See README.md for the arguments.
require "net/http"

ca, requests, big, names, *urls = ARGV
body = ("0123456789abcdef" * (big.to_i / 16 + 1))[0, big.to_i]

check = lambda do |response|
  abort "status #{response.code}" unless response.code == "200"
end

urls.each do |url|
  uri = URI(url)
  Net::HTTP.start(uri.host, uri.port, use_ssl: true, ca_file: ca, read_timeout: 60) do |http|
    check.(http.post("/big", body)) unless body.empty?
    names.split.each do |name|
      requests.to_i.times { check.(http.get("/#{name}", "Authorization" => "Bearer #{ENV.fetch(name)}")) }
    end
    check.(http.post("/big", body)) unless body.empty?
  end
end
