module kloak.test/client

go 1.19
