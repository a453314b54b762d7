-- Give back all that a hold took, as if it had never been; nothing is charged or reported.
--
-- ARGV: now ('' = the server's clock), request. Reply: 1, or 0 where there was no hold.
return release(now_ms(ARGV[1]), ARGV[2], 0) and 1 or 0
