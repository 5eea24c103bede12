// Send plays and follow intents with KafkaJS.
//
//     echo '{"event_id": "e1", "user_id": "7", "item_id": "50", "ts": 1772396100000}' |
//         node examples/kafkajs_client.js send 127.0.0.1:9092 plays
//     node examples/kafkajs_client.js follow 127.0.0.1:9092 intents my-group
//
// Needs kafkajs. Partitioners.DefaultPartitioner is Java's murmur2, the one that a worker expects; LegacyPartitioner, the default of
// KafkaJS 1, is another one. The key is user_id. Messages can repeat after a failure: keep the highest source offset of each member.

"use strict";

const { Kafka, Partitioners, logLevel } = require("kafkajs");

/** Sends the plays of standard input, one JSON object a line. */
async function send(kafka, topic) {
  const lines = require("fs").readFileSync(0, "utf8").split("\n").filter((line) => line.trim() !== "");
  // One request in flight: else a retry could put later plays before earlier ones.
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, maxInFlightRequests: 1 });
  await producer.connect();
  try {
    await producer.send({ topic, acks: -1, messages: lines.map((line) => ({ key: JSON.parse(line).user_id, value: line })) });
  } finally {
    await producer.disconnect();
  }
  console.log(`${lines.length} plays sent`);
}

/** Prints the newest intents of each member as they come, each once, from the first message on. */
async function follow(kafka, topic, groupId) {
  const consumer = kafka.consumer({ groupId });
  const newest = new Map();
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => consumer.disconnect());
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ message }) => {
      const update = JSON.parse(message.value.toString());
      const { topic: of, partition, offset } = update.source;
      const place = JSON.stringify([of, partition, update.user_id]);
      if (offset <= (newest.get(place) ?? -1)) return;
      newest.set(place, offset);
      const primary = update.primary;
      console.log(`${update.user_id}: ${primary ? `${primary.head} = ${primary.label}` : "nothing known"}`);
    },
  });
}

const [what, broker, topic, group] = process.argv.slice(2);
const kafka = new Kafka({ clientId: "example", brokers: [broker], logLevel: logLevel.ERROR });
const run = { send: () => send(kafka, topic), follow: () => follow(kafka, topic, group) }[what];
if (run === undefined) {
  console.error("usage: node kafkajs_client.js send BROKER TOPIC | follow BROKER TOPIC GROUP");
  process.exit(2);
}
run().catch((error) => {
  console.error(String(error));
  process.exit(1);
});
