module kloak.test/load

go 1.19
