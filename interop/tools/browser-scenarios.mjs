// Scenarios for the broker's pages in a real browser, headless Chromium. They use only clicks and
// keys, and take screenshots.
//
// Settings, from the environment: BROKER (root URL), MCP_URL, CLIENT_ID, DOCUMENT_CLIENT_ID (the
// URL of a client metadata document), PORT (of the client's redirect URI), LOGIN, PASSWORD,
// SCREENSHOTS (a folder), CHROMIUM (the program). The script prints one line for each scenario. If
// one fails, the script prints the reason to stderr and exits with status 1.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { join } from "node:path";

import { chromium } from "playwright-core";

const { BROKER, MCP_URL, CLIENT_ID, DOCUMENT_CLIENT_ID, PORT, LOGIN, PASSWORD, SCREENSHOTS } = process.env;
const CALLBACK = `http://127.0.0.1:${PORT}/callback`;
const ALLOW = "button[name=decision][value=approve]";
const DENY = "button[name=decision][value=deny]";
const PHONE = { width: 360, height: 740 };

/** The client: receives the redirect, as an application on this device does. */
const client = createServer((request, response) => {
  response.setHeader("content-type", "text/html; charset=utf-8");
  response.end("<!doctype html><title>The application</title><h1>Back at the application</h1>");
});
await new Promise((resolve) => client.listen(Number(PORT), "127.0.0.1", resolve));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  // Chromium has no sandbox as root. The other flags keep it from connecting to servers outside the
  // test.
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

/**
 * Opens a separate browser context. It records errors on the console and requests to servers
 * outside the test.
 */
async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1024, height: 768 }, ...options });
  const problems = [];
  context.on("console", (message) => {
    // An error page has an error status, which Chromium reports as an error on the console.
    const isStatus = message.text().startsWith("Failed to load resource: the server responded");
    if (message.type() === "error" && !isStatus && message.location().url.startsWith(BROKER)) problems.push(message.text());
  });
  context.on("request", (request) => {
    const { hostname } = new URL(request.url());
    if (hostname !== "127.0.0.1") problems.push(`request to ${request.url()}`);
  });
  context.on("weberror", (error) => problems.push(String(error.error())));
  return { context, problems };
}

async function takeScreenshot(page, name) {
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true });
}

/**
 * Follows the pages from the click on Allow to the client, and signs in at Forgejo where necessary.
 * Returns the parameters.
 */
async function completeSignIn(page) {
  for (let step = 0; step < 4 && !page.url().startsWith(CALLBACK); step += 1) {
    if (await page.locator("input[name=user_name]").count()) {
      await page.fill("input[name=user_name]", LOGIN);
      await page.fill("input[name=password]", PASSWORD);
      await Promise.all([page.waitForNavigation(), page.press("input[name=password]", "Enter")]);
    } else if (await page.locator("button[name=granted][value=true]").count()) {
      await Promise.all([page.waitForNavigation(), page.click("button[name=granted][value=true]")]);
    }
  }
  return redirectParameters(page);
}

/** The parameters of the redirect to the client. */
function redirectParameters(page) {
  assert.ok(page.url().startsWith(CALLBACK), `the browser is at ${page.url()}, not at the application`);
  const parameters = new URL(page.url()).searchParams;
  assert.equal(parameters.get("iss"), BROKER);
  return parameters;
}

async function openConsentPage(page, state) {
  await page.goto(authorizeUrl(state));
  assert.equal(await page.locator(ALLOW).count(), 1, `no consent page: ${await page.textContent("body")}`);
}

async function click(page, selector) {
  await Promise.all([page.waitForNavigation(), page.click(selector)]);
}

/** Checks that the page is accessible and fits into the window. */
async function checkAccessibility(page) {
  assert.equal(await page.getAttribute("html", "lang"), "en");
  assert.equal(await page.locator("h1").count(), 1);
  assert.equal(await page.locator("main").count(), 1);
  assert.notEqual(await page.title(), "");
  const { width, visible } = await page.evaluate(() => ({
    width: document.documentElement.scrollWidth,
    visible: window.innerWidth,
  }));
  assert.ok(width <= visible, `the page is ${width} px wide, but only ${visible} px are visible`);
}

const scenarios = {
  async "complete sign-in"({ context }) {
    const page = await context.newPage();
    await openConsentPage(page, "whole");
    await checkAccessibility(page);
    await takeScreenshot(page, "consent");
    await click(page, ALLOW);
    const parameters = await completeSignIn(page);
    assert.ok(parameters.get("code"));
    assert.equal(parameters.get("state"), "whole");
  },
  async "keyboard without JavaScript"({ context }) {
    const page = await context.newPage();
    await openConsentPage(page, "keyboard");
    await page.locator(ALLOW).focus();
    await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
    assert.ok((await completeSignIn(page)).get("code"));
  },
  async deny({ context }) {
    const page = await context.newPage();
    await openConsentPage(page, "deny");
    await click(page, DENY);
    const parameters = redirectParameters(page);
    assert.equal(parameters.get("error"), "access_denied");
    assert.equal(parameters.get("state"), "deny");
    assert.equal(parameters.get("code"), null);
  },
  async "double submit"({ context }) {
    const page = await context.newPage();
    await openConsentPage(page, "double");
    await page.dblclick(ALLOW);
    // The second submission may abort the navigation of the first one, so the scenario waits for the
    // page and not for a navigation.
    await page.locator("input[name=user_name]").waitFor();
    await page.waitForLoadState("networkidle");
    assert.ok((await completeSignIn(page)).get("code"));
  },
  async "back button"({ context }) {
    const page = await context.newPage();
    await openConsentPage(page, "back");
    await click(page, ALLOW);
    await page.goBack();
    assert.equal(await page.locator(ALLOW).count(), 1, "the consent page is not shown again");
    await click(page, ALLOW);
    assert.ok((await completeSignIn(page)).get("code"));
    // Back from the application: the browser shows some page with text, and the client gets no
    // second code.
    await page.goBack();
    await page.waitForLoadState();
    assert.ok(!page.url().includes("code=fmb_"), page.url());
    assert.notEqual((await page.textContent("body")).trim(), "");
  },
  async "two tabs"({ context }) {
    const [one, other] = [await context.newPage(), await context.newPage()];
    await openConsentPage(one, "one");
    await openConsentPage(other, "other");
    await one.reload();
    await click(other, ALLOW);
    const second = await completeSignIn(other);
    await click(one, ALLOW);
    const first = await completeSignIn(one);
    assert.deepEqual([first.get("state"), second.get("state")], ["one", "other"]);
    assert.ok(first.get("code") && second.get("code"));
    assert.notEqual(first.get("code"), second.get("code"));
  },
  async "phone"({ context }) {
    const page = await context.newPage();
    await openConsentPage(page, "phone");
    await checkAccessibility(page);
    for (const selector of [ALLOW, DENY]) {
      const box = await page.locator(selector).boundingBox();
      assert.ok(box.height >= 40 && box.width >= 100, `a button of ${box.width} by ${box.height} px`);
    }
    await takeScreenshot(page, "consent-phone");
    await page.tap(ALLOW);
    await page.waitForLoadState();
    assert.ok((await completeSignIn(page)).get("code"));
  },
  async "dark color scheme"({ context }) {
    const page = await context.newPage();
    await openConsentPage(page, "dark");
    const colors = await page.evaluate(() => {
      const { color, backgroundColor } = getComputedStyle(document.body);
      return { color, page: [backgroundColor, getComputedStyle(document.documentElement).backgroundColor] };
    });
    const brightness = (color) => (color.match(/\d+/g) ?? []).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 3;
    assert.ok(brightness(colors.color) > 150, `dark text in the dark color scheme: ${JSON.stringify(colors)}`);
    await takeScreenshot(page, "consent-dark");
  },
  async "client with metadata document"({ context }) {
    const page = await context.newPage();
    await page.goto(authorizeUrl("document", { client_id: DOCUMENT_CLIENT_ID }));
    await checkAccessibility(page);
    assert.match(await page.textContent("main"), /belongs to client\.example/);
    await takeScreenshot(page, "consent-domain");
    await click(page, ALLOW);
    assert.ok((await completeSignIn(page)).get("code"));
  },
  async "unknown client"({ context }) {
    const page = await context.newPage();
    const response = await page.goto(authorizeUrl("unknown", { client_id: "unknown" }));
    assert.ok(response.status() >= 400);
    await checkAccessibility(page);
    await takeScreenshot(page, "unknown-client");
  },
  async "redirect URI of another client"({ context }) {
    const page = await context.newPage();
    const response = await page.goto(authorizeUrl("wrong", { redirect_uri: "https://evil.example/" }));
    assert.equal(response.status(), 400);
    await checkAccessibility(page);
    await takeScreenshot(page, "wrong-redirect");
  },
  async "repeated callback"({ context }) {
    const page = await context.newPage();
    const callbacks = [];
    page.on("request", (request) => {
      if (request.url().startsWith(`${BROKER}/oauth/callback`)) callbacks.push(request.url());
    });
    await openConsentPage(page, "twice");
    await click(page, ALLOW);
    await completeSignIn(page);
    const response = await page.goto(callbacks[0]);
    assert.ok(response.status() >= 400);
    await checkAccessibility(page);
    await takeScreenshot(page, "used-before");
  },
  async "your connections"({ context }) {
    const page = await context.newPage();
    await openConsentPage(page, "connected");
    await click(page, ALLOW);
    await completeSignIn(page);
    await page.goto(`${BROKER}/oauth/connections`);
    await checkAccessibility(page);
    await takeScreenshot(page, "connections-sign-in");
    await Promise.all([page.waitForNavigation(), page.click("main form button[type=submit]")]);
    await checkAccessibility(page);
    const rows = page.locator("ul.list > li");
    const before = await rows.count();
    assert.ok(before > 0, `no connection: ${await page.textContent("body")}`);
    await takeScreenshot(page, "connections");
    await page.setViewportSize(PHONE);
    await checkAccessibility(page);
    await takeScreenshot(page, "connections-phone");
    await Promise.all([page.waitForNavigation(), rows.first().locator("button").click()]);
    assert.equal(await rows.count(), before - 1);
    await checkAccessibility(page);
    await takeScreenshot(page, "connections-ended");
    for (let left = before - 1; left > 0; left -= 1) {
      await Promise.all([page.waitForNavigation(), rows.first().locator("button").click()]);
    }
    assert.match(await page.textContent("main"), /No application has access/);
    await takeScreenshot(page, "connections-none");
    await Promise.all([page.waitForNavigation(), page.click("button[value=sign-out]")]);
    await page.goto(`${BROKER}/oauth/connections`);
    assert.equal(await rows.count(), 0, "a connection is shown after signing out");
  },
};

const settings = {
  "keyboard without JavaScript": { javaScriptEnabled: false },
  "phone": { viewport: PHONE, deviceScaleFactor: 2, hasTouch: true, isMobile: true },
  "dark color scheme": { colorScheme: "dark" },
};

let failed = 0;
for (const [name, scenario] of Object.entries(scenarios)) {
  const { context, problems } = await open(settings[name]);
  context.setDefaultTimeout(15_000);
  try {
    await scenario({ context });
    assert.deepEqual(problems, []);
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
