-- Let the token windows of one bucket count what undecided requests really used, now that the ledger knows.
--
-- ARGV: for each request its id, tokens. One that is decided already stays.
for i = 1, #ARGV, 2 do decide(ARGV[i], tonumber(ARGV[i + 1])) end
return #ARGV / 2
