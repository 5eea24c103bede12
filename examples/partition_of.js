// The partition of the plays topic where a worker expects a member's plays: Kafka's murmur2 of user_id in UTF-8.
//
//     node examples/partition_of.js 8 u7 u8          of 8 partitions, those of two members
//     node examples/partition_of.js 8 < user_ids     one user id a line
//
// Needs no package. For producers whose client has no such partitioner: give each record this partition explicitly.
// KafkaJS has it as Partitioners.DefaultPartitioner; with librdkafka set partitioner=murmur2_random.

"use strict";

const M = 0x5bd1e995;
const SEED = 0x9747b28c;

/** Kafka's murmur2 of bytes, as a signed 32-bit integer. */
function murmur2(bytes) {
  let h = SEED ^ bytes.length;
  const whole = bytes.length - (bytes.length % 4);
  for (let i = 0; i < whole; i += 4) {
    let k = Math.imul(bytes.readInt32LE(i), M);
    k = Math.imul(k ^ (k >>> 24), M);
    h = Math.imul(h, M) ^ k;
  }
  const rest = bytes.length - whole;
  if (rest >= 3) h ^= bytes[whole + 2] << 16;
  if (rest >= 2) h ^= bytes[whole + 1] << 8;
  if (rest >= 1) h = Math.imul(h ^ bytes[whole], M);
  h = Math.imul(h ^ (h >>> 13), M);
  return h ^ (h >>> 15);
}

/** The partition of a member's plays. */
function partitionOf(userId, numPartitions) {
  return (murmur2(Buffer.from(userId, "utf8")) & 0x7fffffff) % numPartitions;
}

module.exports = { murmur2, partitionOf };

if (require.main === module) {
  const [given, ...userIds] = process.argv.slice(2);
  const numPartitions = Number(given);
  if (!Number.isInteger(numPartitions) || numPartitions < 1) {
    console.error("usage: node partition_of.js NUM_PARTITIONS [USER_ID ...]");
    process.exit(2);
  }
  const lines = () => require("fs").readFileSync(0, "utf8").split("\n").filter((line) => line !== "");
  for (const userId of userIds.length ? userIds : lines()) console.log(partitionOf(userId, numPartitions));
}
