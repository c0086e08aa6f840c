// Requests to the service.

export class ServiceError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let token = sessionStorage.getItem("token") ?? "";

export function setToken(value) {
  token = value;
  sessionStorage.setItem("token", value);
}

async function send(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { ...options, headers: { ...headers, ...options.headers } });
  if (response.ok) return response;
  let detail = response.statusText;
  try {
    detail = (await response.json()).detail ?? detail;
  } catch { /* the body is not JSON */ }
  const error = new ServiceError(response.status, String(detail));
  error.retryAfter = Number(response.headers.get("Retry-After")) || 1;
  throw error;
}

export async function listModels() {
  return (await send("v1/models")).json();
}

export async function fetchSample() {
  return (await send("v1/sample")).blob();
}

// Segments an image; waits and tries again while the service is busy. The options are those of the request.
export async function segment(file, options, output, onBusy = () => {}) {
  const query = new URLSearchParams({ ...options, output });
  // The form carries the file name, by which formats such as .npy are known.
  const form = new FormData();
  form.append("image", file, file.name || "image");
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await send(`v1/segment?${query}`, { method: "POST", body: form });
    } catch (error) {
      if (error.status !== 503 || attempt >= 20) throw error;
      onBusy();
      await new Promise((resolve) => setTimeout(resolve, 1000 * Math.min(error.retryAfter, 5)));
    }
  }
}
