-- What is kept of the requests that one organization sends under idempotency keys.
--
-- KEYS: the record, the organization's running requests, the bytes kept for it, its revision.
-- A record is a hash: `run` (the request that it is of), `body` (a fingerprint), `began`, and when that has ended
-- `reply`: encrypted, or empty where none could be kept. Until then the record lives no longer than its lease.
-- Every command may be run twice with the same effect as once.
local call = redis.call
local RECORD, RUNNING, BYTES, REVISION = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local COMMAND, RUN, BODY = ARGV[1], ARGV[2], ARGV[3]
local HOUR_MS, HOURS = 3600000, 24
local RECORD_BYTES = 1024 -- of a record without its reply
local RESERVED_BYTES = 65536 -- for the reply of a request that still runs
-- Beyond these shares of its memory, Redis is left to what money needs: no new key, and no reply.
local CLAIM_SHARE, KEEP_SHARE = 0.75, 0.8

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local hour = math.floor(now / HOUR_MS)

-- Bytes of the records that may still be there, and in which hour the oldest of them was written.
local function kept_bytes()
  local total, oldest = 0, hour
  local fields = call('HGETALL', BYTES)
  for i = 1, #fields, 2 do
    local at = tonumber(fields[i])
    if at < hour - HOURS then
      call('HDEL', BYTES, fields[i])
    else
      total, oldest = total + tonumber(fields[i + 1]), math.min(oldest, at)
    end
  end
  return total, oldest
end

local function uses_more_than(share)
  local info = call('INFO', 'memory')
  local used, limit = string.match(info, 'used_memory:(%d+)'), string.match(info, 'maxmemory:(%d+)')
  return tonumber(limit) > 0 and tonumber(used) > share * tonumber(limit)
end

local function put_running(lease)
  call('HSETNX', RECORD, 'began', now)
  call('HSET', RECORD, 'run', RUN, 'body', BODY)
  call('PEXPIRE', RECORD, lease)
  call('ZADD', RUNNING, now + lease, RUN)
  call('PEXPIRE', RUNNING, lease)
end

local commands = {}

-- ARGV: lease ms, the most bytes to keep, the caller's revision, whether only a reply that is there is wanted ('1').
-- Reply: {'claimed'}, {'kept', encrypted reply}, {'gone'}, {'running', ms}, {'other_body'}, {'unknown'}, {'outdated'},
--   {'full', ms until there may be room}, {'scarce'}.
function commands.claim()
  local lease, most, revision, only_kept = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == '1'
  local known = call('GET', REVISION)
  if known and tonumber(known) > revision then return { 'outdated' } end
  local found = call('HMGET', RECORD, 'run', 'body', 'began', 'reply')
  if found[1] and found[1] ~= RUN then
    if found[2] ~= BODY then return { 'other_body' } end
    if not found[4] then return { 'running', now - tonumber(found[3]) } end
    return found[4] == '' and { 'gone' } or { 'kept', found[4] }
  end
  if only_kept then return { 'unknown' } end
  if not found[1] then
    call('ZREMRANGEBYSCORE', RUNNING, '-inf', now)
    local bytes, oldest = kept_bytes()
    if bytes + RESERVED_BYTES > most then return { 'full', (oldest + HOURS + 1) * HOUR_MS - now } end
    if bytes + RESERVED_BYTES * (call('ZCARD', RUNNING) + 1) > most then return { 'full', 1000 } end
    if uses_more_than(CLAIM_SHARE) then return { 'scarce' } end
  end
  put_running(lease)
  return { 'claimed' }
end

-- ARGV: lease ms. Reply: 1, or 0 where the key is another request's by now, or its own has ended.
function commands.renew()
  local found = call('HMGET', RECORD, 'run', 'reply')
  if (found[1] and found[1] ~= RUN) or found[2] then return 0 end
  put_running(ARGV[4])
  return 1
end

-- ARGV: the most bytes to keep, the encrypted reply or ''. Reply: 'kept', 'gone', or 'lost' where the key is another
-- request's by now.
function commands.keep()
  local most, reply = tonumber(ARGV[4]), ARGV[5]
  local found = call('HMGET', RECORD, 'run', 'reply')
  if found[1] and found[1] ~= RUN then return 'lost' end
  if found[2] then return found[2] == '' and 'gone' or 'kept' end
  call('ZREM', RUNNING, RUN)
  if kept_bytes() + RECORD_BYTES + #reply > most or uses_more_than(KEEP_SHARE) then reply = '' end
  call('HSET', RECORD, 'run', RUN, 'body', BODY, 'reply', reply)
  call('HDEL', RECORD, 'began')
  call('PEXPIRE', RECORD, HOURS * HOUR_MS)
  call('HINCRBY', BYTES, hour, RECORD_BYTES + #reply)
  call('PEXPIRE', BYTES, (HOURS + 1) * HOUR_MS)
  return reply == '' and 'gone' or 'kept'
end

-- Reply: 1, or 0 where there is nothing of this request.
function commands.forget()
  call('ZREM', RUNNING, RUN)
  local found = call('HMGET', RECORD, 'run', 'reply')
  if found[1] ~= RUN or found[2] then return 0 end
  return call('DEL', RECORD)
end

return commands[COMMAND]()
