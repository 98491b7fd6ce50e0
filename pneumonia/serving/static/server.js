// Requests to the server, and the sentences for those that fail.

const UNREACHABLE = "The server does not answer: check that it is running and that you are online, then try again.";
const FOREIGN = "The answer does not come from this server: check the address.";
// For a gateway in front of the server, whose answers have no sentence for the reader.
const GATEWAY = {
  413: "The file is too large for this server: save it as a JPEG, or make it smaller.",
  403: "This server accepts only signed requests, which browsers do not send: docs/deployment.md says how to open it.",
  429: "The server is busy: try again in a moment.",
  504: "The server took too long: try again.",
};

export const isText = (value) => typeof value === "string";
const isNumber = (value) => typeof value === "number";
export const isReadiness = (answer) => isText(answer?.model_version);
export const isPrediction = (answer) => isText(answer?.prediction) && isText(answer.model_version)
  && isNumber(answer.confidence) && isNumber(answer.probabilities?.PNEUMONIA)
  && Array.isArray(answer.warnings) && answer.warnings.every(isText);

/** Return an Error with a sentence for the reader, and whether trying again may help. */
function failure(sentence, canRetry) {
  return Object.assign(new Error(sentence), { canRetry });
}

/** Return the server's answer if `isExpected` accepts its shape; throw a failure otherwise. */
export async function ask(address, isExpected, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw failure(UNREACHABLE, true);
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && isExpected(answer)) return answer;
  if (response.ok) throw failure(FOREIGN, false);
  const { status } = response;
  const canRetry = status === 403 || status === 429 || status >= 500; // otherwise the same file gets the same answer
  const sentence = isText(answer?.detail) ? answer.detail : GATEWAY[status];
  throw failure(sentence ?? `The server answered ${status}${canRetry ? ": try again." : "."}`, canRetry);
}
