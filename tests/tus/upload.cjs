// Sends a file by tus-js-client: `node upload.cjs SERVER FILE NAME [CUT]`. With CUT it stops for good once that many bytes have arrived, and
// prints the upload's address; without it goes on at RESUME, where that is set.
const fs = require("node:fs");
const tus = require(process.env.TUS_JS_CLIENT);

const [server, file, name, cut] = process.argv.slice(2);
const upload = new tus.Upload(fs.readFileSync(file), {
    endpoint: `${server}/v1/uploads`,
    uploadUrl: process.env.RESUME,
    chunkSize: 512 * 1024,
    retryDelays: [0, 200, 1000],
    metadata: { kind: "dataset", filename: name, "label.client": "tus-js-client" },
    onError(error) {
        console.error(`FAILED: ${error}`);
        process.exit(1);
    },
    onChunkComplete(_size, accepted) {
        if (cut && accepted >= Number(cut)) {
            upload.abort().then(() => console.log(upload.url));
        }
    },
    onSuccess() {
        console.log(upload.url);
    },
});
upload.start();
