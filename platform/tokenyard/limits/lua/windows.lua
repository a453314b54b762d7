-- One scope (a key, a project, an organization) packed into one value: its slots in use and its four rolling windows.
--
-- A window is twelve sub-buckets long. It counts the current one and the twelve before, so that no real window is ever
-- over. Numbers are doubles, exact to 2^53. First stands what nearly every request changes: slots; then of each window
-- the number of its newest sub-bucket, the sum of all that counts, and the newest's own count. After that come each
-- window's twelve older counts, newest first.
--
-- In Lua a scope is a list of the first 13 numbers (slots; a window's three from 3 * its number - 1 on) and, as OLDER,
-- the older counts, still packed.
local pack, unpack_numbers = struct.pack, struct.unpack
local PARTS = 12
local WIDTHS = { 5000, 5000, 7200000, 7200000 } -- ms, by number of the limit: 1 rpm, 2 tpm, 3 rpd, 4 tpd
local SLOTS = 5
local FRONT, NUMBER, ZERO, OLDER = '>ddddddddddddd', '>d', '\0\0\0\0\0\0\0\0', 14
local BYTES, OLDER_BYTES = 8, 96
local SCOPE_MS = 100800000 -- 28 hours: then no window counts anything any more

local function read_scope(value)
  if not value then return { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, string.rep(ZERO, 4 * PARTS) } end
  local scope = { unpack_numbers(FRONT, value) } -- the numbers, and where they end
  scope[OLDER] = sub(value, scope[OLDER])
  return scope
end

local function write_scope(name, scope)
  call('SET', name, pack(FRONT, unpack(scope, 1, 13)) .. scope[OLDER], 'PX', SCOPE_MS)
end

local function older_count(scope, window, age)
  return (unpack_numbers(NUMBER, scope[OLDER], (window - 1) * OLDER_BYTES + (age - 1) * BYTES + 1))
end

-- Make sub-bucket `index` the newest where it is newer; what is too old counts no more. A window that lies further ahead
-- than it is long is of a clock that was wrong, and counts nothing.
local function turn_to(scope, window, index)
  local place = 3 * window - 1
  local passed = index - scope[place]
  if passed <= 0 and passed >= -PARTS then return end
  local older, start, mine = scope[OLDER], (window - 1) * OLDER_BYTES, nil
  if passed > PARTS or passed < 0 then
    mine, scope[place + 1] = string.rep(ZERO, PARTS), 0
  else
    for age = PARTS - passed + 1, PARTS do scope[place + 1] = scope[place + 1] - older_count(scope, window, age) end
    mine = string.rep(ZERO, passed - 1) .. pack(NUMBER, scope[place + 2])
      .. sub(older, start + 1, start + OLDER_BYTES - passed * BYTES)
  end
  scope[place], scope[place + 2] = index, 0
  scope[OLDER] = sub(older, 1, start) .. mine .. sub(older, start + OLDER_BYTES + 1)
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
    local before = older_count(scope, window, age)
    local after = math.max(0, before + change)
    local older, start = scope[OLDER], (window - 1) * OLDER_BYTES + (age - 1) * BYTES
    scope[place + 1] = scope[place + 1] + after - before
    scope[OLDER] = sub(older, 1, start) .. pack(NUMBER, after) .. sub(older, start + BYTES + 1)
  end
end
