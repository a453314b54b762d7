-- One scope (a key, a project, an organization) packed into one value: its slots in use and its four rolling windows.
--
-- A window is twelve sub-buckets long. It counts the current one and the twelve before, so that no real window is ever
-- over. Numbers are doubles, exact to 2^53. First stands what nearly every request changes: slots; then of each window
-- (1 requests and 2 tokens a minute, 3 and 4 a day) the number of its newest sub-bucket, the sum of all that counts,
-- and the newest's own count. After that come each window's twelve older counts, newest first.
--
-- In Lua a scope is a list of the first 13 numbers (slots; a window's three from 3 * its number - 1 on), as VALUE what
-- it was read from, of which only the older counts are right, and as WHOLE whether these have changed.
local PARTS = 12
local MINUTE_PART = 5000 -- ms
local DAY_PART = 7200000
local VALUE = 14
local WHOLE = 15
local FRONT = '>ddddddddddddd'
local FRONT_BYTES = 104
local OLDER_BYTES = 96 -- of a window
local ZERO = '\0\0\0\0\0\0\0\0'
local SCOPE_MS = 100800000 -- 28 hours: a day counts for 26, and at the latest after 2 a scope is written whole

local function read_scope(value)
  if not value then return { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, string.rep(ZERO, 61), true } end
  local scope = { struct.unpack(FRONT, value) } -- the numbers, and where they end
  scope[VALUE] = value
  return scope
end

-- Most often only the front has changed; the rest and its expiry then stay.
local function write_scope(name, scope)
  local front = struct.pack(FRONT, unpack(scope, 1, 13))
  if scope[WHOLE] then
    redis.call('SET', name, front .. string.sub(scope[VALUE], FRONT_BYTES + 1), 'PX', SCOPE_MS)
  else
    redis.call('SETRANGE', name, 0, front)
  end
end

local function older_count(scope, window, age)
  return (struct.unpack('>d', scope[VALUE], FRONT_BYTES + (window - 1) * OLDER_BYTES + age * 8 - 7))
end

-- Make sub-bucket `index` the newest where it is newer; what is too old counts no more. A window that lies further
-- ahead than it is long is of a clock that was wrong, and counts nothing.
local function turn_to(scope, window, index)
  local place = 3 * window - 1
  local passed = index - scope[place]
  if passed <= 0 and passed >= -PARTS then return end
  local value, start = scope[VALUE], FRONT_BYTES + (window - 1) * OLDER_BYTES
  local kept = ''
  if passed > PARTS or passed < 0 then
    passed, scope[place + 1] = PARTS + 1, 0
  else
    for age = PARTS - passed + 1, PARTS do
      scope[place + 1] = scope[place + 1] - older_count(scope, window, age)
    end
    kept = struct.pack('>d', scope[place + 2]) .. string.sub(value, start + 1, start + OLDER_BYTES - passed * 8)
  end
  scope[place], scope[place + 2], scope[WHOLE] = index, 0, true
  scope[VALUE] = string.sub(value, 1, start) .. string.rep(ZERO, passed - 1) .. kept
    .. string.sub(value, start + OLDER_BYTES + 1)
end

-- Count `change` more in sub-bucket `index`, never less than nothing: a correction of what Redis lost meanwhile.
local function count_in(scope, window, index, change)
  local place = 3 * window - 1
  if index > scope[place] then turn_to(scope, window, index) end
  local age = scope[place] - index
  if age == 0 then
    local after = math.max(0, scope[place + 2] + change)
    scope[place + 1], scope[place + 2] = scope[place + 1] + after - scope[place + 2], after
  elseif age <= PARTS then
    local value, at = scope[VALUE], FRONT_BYTES + (window - 1) * OLDER_BYTES + age * 8 - 8
    local before = older_count(scope, window, age)
    local after = math.max(0, before + change)
    scope[place + 1], scope[WHOLE] = scope[place + 1] + after - before, true
    scope[VALUE] = string.sub(value, 1, at) .. struct.pack('>d', after) .. string.sub(value, at + 9)
  end
end
