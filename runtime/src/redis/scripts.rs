//! What is done in Redis in one step each.

/// KEYS: hashes; ARGV: seconds to live, then a version and a value for each. Returns how many were written. What is
/// there and is no hash with a version gives way: nobody of ours wrote it, and it must not stand in the way of what is
/// so.
pub(super) const PUT_IF_NEWER: &str = "
local written = 0
for i, key in ipairs(KEYS) do
  local version, value = ARGV[2 * i], ARGV[2 * i + 1]
  local held = redis.pcall('HGET', key, 'version')
  if type(held) == 'table' then
    redis.call('DEL', key)
    held = false
  end
  held = held and string.match(held, '^%d+$')
  if not held or tonumber(held) < tonumber(version) then
    redis.call('HSET', key, 'version', version, 'value', value)
    redis.call('EXPIRE', key, ARGV[1])
    written = written + 1
  end
end
return written";

/// KEYS: hashes of who is present; ARGV: who says so, milliseconds that it counts, then how many for each. Returns the
/// sums.
pub(super) const PRESENT: &str = "
local time, sums = redis.call('TIME'), {}
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i, key in ipairs(KEYS) do
  if ARGV[i + 2] == '0' then
    redis.call('HDEL', key, ARGV[1])
  else
    redis.call('HSET', key, ARGV[1], ARGV[i + 2] .. ':' .. now + ARGV[2])
    redis.call('PEXPIRE', key, ARGV[2])
  end
  local sum, all = 0, redis.call('HGETALL', key)
  for j = 1, #all, 2 do
    local count, till = string.match(all[j + 1], '^(%d+):(%d+)')
    if tonumber(till) < now then redis.call('HDEL', key, all[j]) else sum = sum + count end
  end
  sums[i] = sum
end
return sums";

/// KEYS: a hash; ARGV: seconds to live, the version that is to be replaced, then the new version and value, or nothing
/// to delete it. Returns 1 where it was done.
pub(super) const REPLACE: &str = "
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[2] then return 0 end
if ARGV[3] then
  redis.call('HSET', KEYS[1], 'version', ARGV[3], 'value', ARGV[4])
  redis.call('EXPIRE', KEYS[1], ARGV[1])
else
  redis.call('DEL', KEYS[1])
end
return 1";
