-- Brings live budgets up to what SQL has committed: sets `ledger` where the version is not older, drops pending amounts.
-- KEYS: for each budget its hash and its pending hash.
-- ARGV: for each budget: create (1: also where Redis has no such budget), version, ledger ("" leaves it), number of
-- charge keys, and these. Money is only moved by HSET and HINCRBY of text: Lua's numbers are doubles.
local at = 1
for i = 1, #KEYS, 2 do
  local budget, pending = KEYS[i], KEYS[i + 1]
  local create, version, ledger, count = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  at = at + 4
  local known = redis.call('EXISTS', budget) == 1
  if ledger ~= '' and (known or create == '1') then
    local current = redis.call('HGET', budget, 'version')
    if not current or tonumber(version) >= tonumber(current) then
      redis.call('HSET', budget, 'ledger', ledger, 'version', version)
    end
    redis.call('HSETNX', budget, 'pending', '0')
    redis.call('HSETNX', budget, 'held', '0')
    known = true
  end
  for k = at, at + count - 1 do
    local amount = redis.call('HGET', pending, ARGV[k])
    if amount then
      redis.call('HDEL', pending, ARGV[k])
      if known and amount ~= '0' then
        redis.call('HINCRBY', budget, 'pending', '-' .. amount)
      end
    end
  end
  at = at + count
end
return redis.status_reply('OK')
