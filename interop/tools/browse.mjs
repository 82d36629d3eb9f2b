// A person at a real browser: headless Chromium on the broker's pages, by clicks alone. Takes a screenshot of each page.
//
// Settings, from the environment: BROKER (root URL), MCP_URL, CLIENT_ID, DESCRIBED (the URL of a document that describes
// a client), PORT (where the client listens for the answer), LOGIN, PASSWORD, SCREENSHOTS (a folder), CHROMIUM (the program). Prints one line for each walk; a walk that fails ends the
// process with status 1 and says why on stderr.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { join } from "node:path";

import { chromium } from "playwright-core";

const { BROKER, MCP_URL, CLIENT_ID, DESCRIBED, PORT, LOGIN, PASSWORD, SCREENSHOTS } = process.env;
const CALLBACK = `http://127.0.0.1:${PORT}/callback`;
const ALLOW = "button[name=decision][value=approve]";
const DENY = "button[name=decision][value=deny]";
const PHONE = { width: 360, height: 740 };

/** The client: takes the answer, as an application on this device does. */
const client = createServer((request, response) => {
  response.setHeader("content-type", "text/html; charset=utf-8");
  response.end("<!doctype html><title>The application</title><h1>Back at the application</h1>");
});
await new Promise((resolve) => client.listen(Number(PORT), "127.0.0.1", resolve));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // As root there is no sandbox; the other flags keep it from calling anybody but the servers of the test.
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});

function authorizeUrl(state, changes = {}) {
  const parameters = {
    response_type: "code",
    client_id: CLIENT_ID,
    redirect_uri: CALLBACK,
    state,
    code_challenge: "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    code_challenge_method: "S256",
    resource: MCP_URL,
    ...changes,
  };
  return `${BROKER}/oauth/authorize?${new URLSearchParams(parameters)}`;
}

/** A browser of its own, which notes what no page may do: complain, or ask a server that has no part in this. */
async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1024, height: 768 }, ...options });
  const complaints = [];
  context.on("console", (message) => {
    // A page that says no has an error status, which Chromium notes as an error of the console.
    const isStatus = message.text().startsWith("Failed to load resource: the server responded");
    if (message.type() === "error" && !isStatus && message.location().url.startsWith(BROKER)) complaints.push(message.text());
  });
  context.on("request", (request) => {
    const { hostname } = new URL(request.url());
    if (hostname !== "127.0.0.1") complaints.push(`asked ${request.url()}`);
  });
  context.on("weberror", (error) => complaints.push(String(error.error())));
  return { context, complaints };
}

async function shot(page, name) {
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true });
}

/** From the click on Allow to the client, signing in at Forgejo where it asks. */
async function throughForgejo(page) {
  for (let step = 0; step < 4 && !page.url().startsWith(CALLBACK); step += 1) {
    if (await page.locator("input[name=user_name]").count()) {
      await page.fill("input[name=user_name]", LOGIN);
      await page.fill("input[name=password]", PASSWORD);
      await Promise.all([page.waitForNavigation(), page.press("input[name=password]", "Enter")]);
    } else if (await page.locator("button[name=granted][value=true]").count()) {
      await Promise.all([page.waitForNavigation(), page.click("button[name=granted][value=true]")]);
    }
  }
  return answer(page);
}

/** The answer that the client got. */
function answer(page) {
  assert.ok(page.url().startsWith(CALLBACK), `the browser is at ${page.url()}, not at the application`);
  const parameters = new URL(page.url()).searchParams;
  assert.equal(parameters.get("iss"), BROKER);
  return parameters;
}

async function consent(page, state) {
  await page.goto(authorizeUrl(state));
  assert.equal(await page.locator(ALLOW).count(), 1, `no consent page: ${await page.textContent("body")}`);
}

async function click(page, selector) {
  await Promise.all([page.waitForNavigation(), page.click(selector)]);
}

/** What anyone who reads the page otherwise than by its looks needs. */
async function readable(page) {
  assert.equal(await page.getAttribute("html", "lang"), "en");
  assert.equal(await page.locator("h1").count(), 1);
  assert.equal(await page.locator("main").count(), 1);
  assert.notEqual(await page.title(), "");
  const { wide, seen } = await page.evaluate(() => ({
    wide: document.documentElement.scrollWidth,
    seen: window.innerWidth,
  }));
  assert.ok(wide <= seen, `the page is ${wide} px wide, and ${seen} px of it are seen`);
}

const walks = {
  async "the whole flow"({ context }) {
    const page = await context.newPage();
    await consent(page, "whole");
    await readable(page);
    await shot(page, "consent");
    await click(page, ALLOW);
    const got = await throughForgejo(page);
    assert.ok(got.get("code"));
    assert.equal(got.get("state"), "whole");
  },
  async "without JavaScript, by the keyboard"({ context }) {
    const page = await context.newPage();
    await consent(page, "keyboard");
    await page.locator(ALLOW).focus();
    await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
    assert.ok((await throughForgejo(page)).get("code"));
  },
  async deny({ context }) {
    const page = await context.newPage();
    await consent(page, "deny");
    await click(page, DENY);
    const got = answer(page);
    assert.equal(got.get("error"), "access_denied");
    assert.equal(got.get("state"), "deny");
    assert.equal(got.get("code"), null);
  },
  async "a double submit"({ context }) {
    const page = await context.newPage();
    await consent(page, "double");
    await Promise.all([page.waitForNavigation(), page.dblclick(ALLOW)]);
    await page.waitForLoadState("networkidle");
    assert.ok((await throughForgejo(page)).get("code"));
  },
  async "the back button"({ context }) {
    const page = await context.newPage();
    await consent(page, "back");
    await click(page, ALLOW);
    await page.goBack();
    assert.equal(await page.locator(ALLOW).count(), 1, "the consent page is there again");
    await click(page, ALLOW);
    assert.ok((await throughForgejo(page)).get("code"));
    // Back from the application: whatever is shown is a page for people and gives no second code.
    await page.goBack();
    await page.waitForLoadState();
    assert.ok(!page.url().includes("code=fmb_"), page.url());
    assert.notEqual((await page.textContent("body")).trim(), "");
  },
  async "two tabs"({ context }) {
    const [one, other] = [await context.newPage(), await context.newPage()];
    await consent(one, "one");
    await consent(other, "other");
    await one.reload();
    await click(other, ALLOW);
    const second = await throughForgejo(other);
    await click(one, ALLOW);
    const first = await throughForgejo(one);
    assert.deepEqual([first.get("state"), second.get("state")], ["one", "other"]);
    assert.ok(first.get("code") && second.get("code"));
    assert.notEqual(first.get("code"), second.get("code"));
  },
  async "a phone"({ context }) {
    const page = await context.newPage();
    await consent(page, "phone");
    await readable(page);
    for (const selector of [ALLOW, DENY]) {
      const box = await page.locator(selector).boundingBox();
      assert.ok(box.height >= 40 && box.width >= 100, `a button of ${box.width} by ${box.height} px`);
    }
    await shot(page, "consent-phone");
    await page.tap(ALLOW);
    await page.waitForLoadState();
    assert.ok((await throughForgejo(page)).get("code"));
  },
  async "in the dark"({ context }) {
    const page = await context.newPage();
    await consent(page, "dark");
    const colours = await page.evaluate(() => {
      const { color, backgroundColor } = getComputedStyle(document.body);
      return { color, page: [backgroundColor, getComputedStyle(document.documentElement).backgroundColor] };
    });
    const light = (colour) => (colour.match(/\d+/g) ?? []).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 3;
    assert.ok(light(colours.color) > 150, `dark text in the dark: ${JSON.stringify(colours)}`);
    await shot(page, "consent-dark");
  },
  async "an application that a domain describes"({ context }) {
    const page = await context.newPage();
    await page.goto(authorizeUrl("described", { client_id: DESCRIBED }));
    await readable(page);
    assert.match(await page.textContent("main"), /belongs to client\.example/);
    await shot(page, "consent-domain");
    await click(page, ALLOW);
    assert.ok((await throughForgejo(page)).get("code"));
  },
  async "an unknown client"({ context }) {
    const page = await context.newPage();
    const response = await page.goto(authorizeUrl("unknown", { client_id: "nobody" }));
    assert.ok(response.status() >= 400);
    await readable(page);
    await shot(page, "unknown-client");
  },
  async "a redirect URI that is not the client's"({ context }) {
    const page = await context.newPage();
    const response = await page.goto(authorizeUrl("wrong", { redirect_uri: "https://evil.example/" }));
    assert.equal(response.status(), 400);
    await readable(page);
    await shot(page, "wrong-redirect");
  },
  async "a callback that was used before"({ context }) {
    const page = await context.newPage();
    const callbacks = [];
    page.on("request", (request) => {
      if (request.url().startsWith(`${BROKER}/oauth/callback`)) callbacks.push(request.url());
    });
    await consent(page, "twice");
    await click(page, ALLOW);
    await throughForgejo(page);
    const response = await page.goto(callbacks[0]);
    assert.ok(response.status() >= 400);
    await readable(page);
    await shot(page, "used-before");
  },
  async "your connections"({ context }) {
    const page = await context.newPage();
    await consent(page, "connected");
    await click(page, ALLOW);
    await throughForgejo(page);
    await page.goto(`${BROKER}/oauth/connections`);
    await readable(page);
    await shot(page, "connections-sign-in");
    await Promise.all([page.waitForNavigation(), page.click("main form button[type=submit]")]);
    await readable(page);
    const rows = page.locator("ul.list > li");
    const before = await rows.count();
    assert.ok(before > 0, `no connection: ${await page.textContent("body")}`);
    await shot(page, "connections");
    await page.setViewportSize(PHONE);
    await readable(page);
    await shot(page, "connections-phone");
    await Promise.all([page.waitForNavigation(), rows.first().locator("button").click()]);
    assert.equal(await rows.count(), before - 1);
    await readable(page);
    await shot(page, "connections-ended");
    for (let left = before - 1; left > 0; left -= 1) {
      await Promise.all([page.waitForNavigation(), rows.first().locator("button").click()]);
    }
    assert.match(await page.textContent("main"), /No application has access/);
    await shot(page, "connections-none");
    await Promise.all([page.waitForNavigation(), page.click("button[value=sign-out]")]);
    await page.goto(`${BROKER}/oauth/connections`);
    assert.equal(await rows.count(), 0, "signed out is signed out");
  },
};

const settings = {
  "without JavaScript, by the keyboard": { javaScriptEnabled: false },
  "a phone": { viewport: PHONE, deviceScaleFactor: 2, hasTouch: true, isMobile: true },
  "in the dark": { colorScheme: "dark" },
};

let failed = 0;
for (const [name, walk] of Object.entries(walks)) {
  const { context, complaints } = await open(settings[name]);
  context.setDefaultTimeout(15_000);
  try {
    await walk({ context });
    assert.deepEqual(complaints, []);
    console.log(`ok ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${name}`);
    console.error(`${name}: ${error.stack ?? error}`);
  }
  await context.close();
}
await browser.close();
client.close();
process.exit(failed === 0 ? 0 : 1);
