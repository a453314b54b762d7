-- Read budgets of one bucket, and all that is pending in it, as they stand in one moment; nothing changes.
--
-- ARGV: how many pending charges to read at most, then names.
-- Reply: {each budget's value, number of pending charges, their keys and records where they are not too many}.
local names, pending = {}, KEYS[1] .. ':pending.2'
for i = 2, #ARGV do names[#names + 1] = key('budget.2', ARGV[i]) end
local count = redis.call('HLEN', pending)
local charges = count <= tonumber(ARGV[1]) and redis.call('HGETALL', pending) or {}
return { redis.call('MGET', unpack(names)), count, charges }
