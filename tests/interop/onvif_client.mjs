// An ONVIF client that is not ours: reads a camera, waits for one event, tells what it saw as JSON.
import onvif from "onvif";
const [port, username, password] = process.argv.slice(2);
const camera = new onvif.Cam({ hostname: "127.0.0.1", port: Number(port), username, password, timeout: 8000 }, (error) => {
  if (error) { console.error(error); process.exit(1); }
  camera.getDeviceInformation((failed, information) => {
    if (failed) { console.error(failed); process.exit(1); }
    camera.getStreamUri({ protocol: "RTSP", profileToken: camera.profiles[0].$.token }, (wrong, stream) => {
      if (wrong) { console.error(wrong); process.exit(1); }
      let told = false;
      camera.on("event", (message) => {
        const topic = message.topic._;
        const item = message.message.message.data?.simpleItem?.$;
        if (told || !topic.includes("MotionAlarm") || String(item?.Value) !== "true") return;
        told = true;
        console.log(JSON.stringify({ information, profiles: camera.profiles.length, stream: stream.uri, topic }));
        process.exit(0);
      });
      setTimeout(() => console.log("subscribed"), 500);
    });
  });
});
