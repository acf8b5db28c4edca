// A photo from the camera as a file. Where a page may not use the camera (no HTTPS, an old browser)
// the plain input that opens a phone's own camera stays.

const dialog = document.querySelector("#camera");
const video = document.querySelector("#camera-video");
const trouble = document.querySelector("#camera-problem");
const takeButton = document.querySelector("#camera-take");
const turnButton = document.querySelector("#camera-turn");
const closeButton = document.querySelector("#camera-close");

let stream = null;
let facing = "environment";
let taken = 0;
let give = null; // who gets the photo: whose button opened the camera

function stop() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = video.srcObject = null;
}

async function start() {
  stop();
  trouble.hidden = true;
  takeButton.disabled = true;
  try {
    const wanted = { facingMode: facing, width: { ideal: 1920 }, height: { ideal: 1080 } };
    const opened = await navigator.mediaDevices.getUserMedia({ video: wanted });
    if (!dialog.open) {
      for (const track of opened.getTracks()) track.stop();
      return;
    }
    stream = video.srcObject = opened;
    const devices = await navigator.mediaDevices.enumerateDevices();
    turnButton.hidden = devices.filter((device) => device.kind === "videoinput").length < 2;
  } catch (error) {
    const refused = error.name === "NotAllowedError";
    trouble.textContent = refused ? dialog.dataset.refused : dialog.dataset.missing;
    trouble.hidden = false;
    closeButton.focus();
  }
}

function photo() {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
}

function wire() {
  // A button loses the focus when it is disabled, as this one is until the camera runs.
  video.addEventListener("playing", () => {
    takeButton.disabled = false;
    if (![turnButton, closeButton].includes(document.activeElement)) takeButton.focus();
  });
  takeButton.addEventListener("click", async () => {
    takeButton.disabled = true; // a second press would take a second photo
    video.pause(); // shows the photo, which browsers write when nothing else is to be drawn
    const blob = await photo();
    taken += 1;
    dialog.close();
    give(new File([blob], `camera-${taken}.jpg`, { type: "image/jpeg" }));
  });
  turnButton.addEventListener("click", () => {
    facing = facing === "environment" ? "user" : "environment";
    start();
  });
  closeButton.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", stop);
}

// Shows a button that opens the camera and calls take(file), in place of the fallback. A page may have several.
export function offerCamera(button, fallback, take) {
  if (!navigator.mediaDevices?.getUserMedia || !dialog.showModal) return;
  if (!give) wire();
  give = take;
  button.hidden = false;
  fallback.remove();
  button.addEventListener("click", () => {
    give = take;
    dialog.showModal();
    start();
  });
}
