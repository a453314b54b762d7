-- Let the token windows of one bucket count what undecided requests really used, now that the ledger knows.
--
-- ARGV: now ('' = the server's clock), then for each request: its id, tokens. One that is decided already stays.
local now = now_ms(ARGV[1])
for i = 2, #ARGV, 2 do decide(now, ARGV[i], tonumber(ARGV[i + 1])) end
return (#ARGV - 1) / 2
