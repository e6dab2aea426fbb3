// A Sparkplug host that is not ours: says it is online, asks for a rebirth, decodes what comes with an independent decoder.
// Usage: node host.mjs PORT HOST GROUP NODE; prints a line of JSON per message; "rebirth" on standard input asks for one.
import mqtt from "mqtt";
import payloads from "sparkplug-payload";
import protobuf from "sparkplug-payload/lib/sparkplugPayloadProto.js";

const spb = payloads.get("spBv1.0");
const [port, host, group, node] = process.argv.slice(2);
const timestamp = Date.now();
const state = (online) => JSON.stringify({ online, timestamp });
const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, {
  clientId: host,
  clean: true,
  will: { topic: `spBv1.0/STATE/${host}`, payload: state(false), qos: 1, retain: true },
});
const plain = (value) => (typeof value === "object" && value !== null && "toNumber" in value ? value.toNumber() : value);
// In data a metric has an alias and no datatype; a host without birth state can still read the field that is set.
const Raw = protobuf.org.eclipse.tahu.protobuf.Payload;
const fields = (raw) =>
  Raw.decode(raw).metrics.map((one) => {
    const set = Object.keys(one).find((name) => name.endsWith("Value"));
    return set === undefined || set === "datasetValue" ? null : plain(one[set]);
  });
client.on("connect", () =>
  client.subscribe({ "spBv1.0/#": { qos: 0 }, [`spBv1.0/STATE/${host}`]: { qos: 1 } }, () =>
    client.publish(`spBv1.0/STATE/${host}`, state(true), { qos: 1, retain: true }),
  ),
);
client.on("message", (topic, raw, packet) => {
  const [, , type, from, device] = topic.split("/");
  if (!["NBIRTH", "DBIRTH", "NDATA", "DDATA", "NDEATH", "DDEATH"].includes(type)) return;
  const payload = spb.decodePayload(raw);
  const values = fields(raw);
  console.log(
    JSON.stringify({
      type,
      node: from,
      device: device ?? null,
      qos: packet.qos,
      retain: packet.retain,
      seq: payload.seq === undefined || payload.seq === null ? null : plain(payload.seq),
      timestamp: plain(payload.timestamp ?? null),
      metrics: (payload.metrics ?? []).map((one, place) => ({
        name: one.name ?? null,
        alias: plain(one.alias ?? null),
        type: one.type ?? null,
        timestamp: plain(one.timestamp ?? null),
        value: values[place],
      })),
    }),
  );
});
process.stdin.on("data", (line) => {
  if (String(line).trim() === "rebirth") {
    const payload = { timestamp: Date.now(), metrics: [{ name: "Node Control/Rebirth", type: "Boolean", value: true }] };
    client.publish(`spBv1.0/${group}/NCMD/${node}`, Buffer.from(spb.encodePayload(payload)), { qos: 0 });
  }
});
