-- Expire holds of one bucket whose lease has ended. What they held becomes pending until the ledger decides, so an
-- unclear request can only refuse others, never overspend.
--
-- ARGV: now ('' = the server's clock), then for each hold: request, event.
-- Reply: how many expired; one that was renewed or settled meanwhile is left alone.
local now, expired = now_ms(ARGV[1]), 0
for i = 2, #ARGV, 2 do
  local request, event = ARGV[i], ARGV[i + 1]
  local lease_end = call('ZSCORE', HOLDS, request)
  if lease_end and tonumber(lease_end) <= now then
    local amount, budgets = release(now, request, 0)
    if amount then
      for budget in string.gmatch(budgets, '%S+') do set_pending(budget, request, amount) end
      call('XADD', USAGE, '*', 'event', event)
      expired = expired + 1
    end
  end
end
return expired
