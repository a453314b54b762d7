-- Bring budgets up to what SQL has committed: set `ledger`, and drop the pending amounts that it covers by now.
--
-- ARGV, for each budget: name, create (1: also where Redis has no such budget), ledger ('' leaves it), version, number
--   of charge keys, and these. A budget that is created without a ledger figure is known from then on, but missing for
--   admission: so no update is lost between a look into SQL and its arrival here.
-- Reply: how many ledger figures were set. One is left where Redis has a newer version.
local MONTH_MS = 3456000000 -- 40 days: a month that nothing was charged to for so long is over; SQL has it
local at, changed = 1, 0
while at <= #ARGV do
  local budget, create, ledger, version = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local first, last = at + 5, at + 4 + tonumber(ARGV[at + 4])
  local name = key('budget', budget)
  local known = call('EXISTS', name) == 1
  if ledger ~= '' and (known or create == '1') then
    local current = call('HGET', name, 'version')
    if not current or tonumber(version) >= tonumber(current) then
      call('HSET', name, 'ledger', ledger, 'version', version)
      changed = changed + 1
    end
    known = true
  elseif create == '1' and not known then
    call('HSET', name, 'version', '-1')
    known = true
  end
  if known and sub(budget, 1, 6) == 'month:' then call('PEXPIRE', name, MONTH_MS) end
  for i = first, last do
    if known then set_pending(budget, ARGV[i], '0') else call('HDEL', key('pending', budget), ARGV[i]) end
  end
  at = last + 1
end
return changed
