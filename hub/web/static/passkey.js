// Passkeys: has the browser's authenticator answer the hub's question, to sign in or to make a new one.
"use strict";
(() => {
  const button = document.querySelector("[data-passkey]");
  if (!button) return;
  if (!window.PublicKeyCredential) {
    button.hidden = true;
    return;
  }
  const said = document.getElementById("passkey-said");
  const token = document.querySelector("input[name=form_token]");

  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (one) => one.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const named = (list) => (list || []).map((one) => ({ ...one, id: bytes(one.id) }));

  async function post(path, body) {
    const headers = { "Content-Type": "application/json" };
    if (token) headers["X-Form-Token"] = token.value;
    const response = await fetch(path, { method: "POST", headers, body });
    const told = await response.json();
    if (!response.ok) throw new Error(told.detail);
    return told;
  }

  async function make(asked) {
    const made = await navigator.credentials.create({
      publicKey: {
        ...asked,
        challenge: bytes(asked.challenge),
        user: { ...asked.user, id: bytes(asked.user.id) },
        excludeCredentials: named(asked.excludeCredentials),
      },
    });
    return { clientDataJSON: text(made.response.clientDataJSON), attestationObject: text(made.response.attestationObject), made };
  }

  async function prove(asked) {
    const made = await navigator.credentials.get({
      publicKey: { ...asked, challenge: bytes(asked.challenge), allowCredentials: named(asked.allowCredentials) },
    });
    const { clientDataJSON, authenticatorData, signature, userHandle } = made.response;
    return {
      clientDataJSON: text(clientDataJSON),
      authenticatorData: text(authenticatorData),
      signature: text(signature),
      userHandle: userHandle ? text(userHandle) : null,
      made,
    };
  }

  button.addEventListener("click", async () => {
    button.disabled = true;
    said.textContent = "";
    try {
      const asked = await post(button.dataset.question, "{}");
      const { made, ...response } = await (button.dataset.passkey === "make" ? make : prove)(asked);
      const answer = { id: made.id, rawId: text(made.rawId), type: made.type, response, clientExtensionResults: {} };
      const label = document.querySelector("[data-passkey-label]");
      const query = label ? `?label=${encodeURIComponent(label.value)}` : "";
      await post(button.dataset.answer + query, JSON.stringify(answer));
      location.assign(button.dataset.next);
    } catch {
      said.textContent = button.dataset.failed;
      button.disabled = false;
    }
  });
})();
