-- Expire holds of one bucket whose lease has ended. What they held becomes pending, and their tokens stay counted,
-- until the ledger decides: an unclear request can only refuse others, never overspend.
--
-- ARGV: now ('' = the server's clock), then for each hold: request, event ('' = no request, so nothing was used).
-- Reply: how many expired; one that was renewed or settled meanwhile is left alone.
local now, expired = now_ms(ARGV[1]), 0
for i = 2, #ARGV, 2 do
  local request, event = ARGV[i], ARGV[i + 1]
  local lease_end = redis.call('ZSCORE', KEYS[1] .. ':holds.2', request)
  if lease_end and tonumber(lease_end) <= now then
    local hold = drop_hold(request, redis.call('GET', key('request', request)))
    if hold and event ~= '' then
      set_pending(request, struct.pack(AMOUNT, hold.amount, hold.rest), hold.budgets)
      leave_undecided(request, hold)
      redis.call('XADD', KEYS[1] .. ':usage', '*', 'event', event)
    end
    if hold then expired = expired + 1 end
  end
end
return expired
