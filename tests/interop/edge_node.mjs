// A Sparkplug edge node that is not ours: births itself and a device, sends data, answers rebirths.
// Usage: node edge_node.mjs PORT GROUP NODE; prints a line of JSON for each thing that happens.
import sparkplug from "sparkplug-client";

const [port, group, node] = process.argv.slice(2);
const say = (event) => console.log(JSON.stringify(event));
const client = sparkplug.newClient({
  serverUrl: `mqtt://127.0.0.1:${port}`,
  username: "",
  password: "",
  groupId: group,
  edgeNode: node,
  clientId: node,
  version: "spBv1.0",
  publishDeath: true,
});
const now = () => Date.now();
const births = () => {
  client.publishNodeBirth({
    timestamp: now(),
    metrics: [
      { name: "Node Control/Rebirth", type: "Boolean", value: false },
      { name: "Site/Name", type: "String", value: "Trạm bơm Mỹ Xuyên" },
    ],
  });
  client.publishDeviceBirth("pump", {
    timestamp: now(),
    metrics: [
      { name: "Pump/Flow", type: "Double", value: 1.5 },
      { name: "Pump/Running", type: "Boolean", value: true },
      { name: "Pump/Starts", type: "Int32", value: -3 },
    ],
  });
  say({ born: true });
};
client.on("birth", births);
client.on("ncmd", (payload) => {
  say({ ncmd: payload.metrics.map((one) => [one.name, one.value]) });
  if (payload.metrics.some((one) => one.name === "Node Control/Rebirth" && one.value === true)) births();
});
client.on("dcmd", (device, payload) => say({ dcmd: [device, ...payload.metrics.map((one) => [one.name, one.value])] }));
process.stdin.on("data", (line) => {
  const word = String(line).trim();
  if (word === "data")
    client.publishDeviceData("pump", { timestamp: now(), metrics: [{ name: "Pump/Flow", type: "Double", value: 2.25 }] });
  if (word === "stop") {
    client.stop();
    setTimeout(() => process.exit(0), 300);
  }
});
