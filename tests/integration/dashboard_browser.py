"""The page in a real browser: headless Chromium, driven by the WebDriver protocol (W3C).

Usage: dashboard_browser.py URL FOLDER [PICTURE]. FOLDER is for the browser's files; PICTURE is where a
screenshot goes. The node has the enclaves `sim` (which made the segment `melt.frames`) and `viz`."""
import base64
import json
import re
import subprocess
import sys
import time
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's key of an element's id


class Browser:
    def __init__(self, folder):
        self.driver = subprocess.Popen(["/usr/bin/chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        try:
            self.begin(folder)
        except BaseException:
            self.end()
            raise

    def begin(self, folder):
        for line in self.driver.stdout:
            if found := re.search(r"successfully on port (\d+)", line):
                self.base = f"http://127.0.0.1:{found[1]}"
                break
        options = {"binary": "/usr/bin/chromium", "args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions",
            "--disable-background-networking", "--window-size=1100,1000", f"--user-data-dir={folder}/chromium"]}
        answer = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}}})
        self.session = f"/session/{answer['sessionId']}"

    def end(self):
        self.driver.terminate()
        self.driver.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.ask("DELETE", self.session)
        finally:
            self.end()

    def ask(self, method, path, body=None):
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url):
        self.ask("POST", f"{self.session}/url", {"url": url})

    def run(self, script, *arguments):
        return self.ask("POST", f"{self.session}/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, condition, what, seconds=15):
        """Until a JavaScript expression holds."""
        deadline = time.time() + seconds
        while not self.run(f"return {condition}"):
            assert time.time() < deadline, f"{what}: {condition} does not hold; the page says:\n{self.text()}"
            time.sleep(0.05)

    def text(self):
        return self.run("return document.body.innerText")

    def press(self, key):
        self.ask("POST", f"{self.session}/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]}]})

    def click(self, selector):
        element = self.ask("POST", f"{self.session}/element", {"using": "css selector", "value": selector})
        self.ask("POST", f"{self.session}/element/{element[ELEMENT]}/click")

    def picture(self, path):
        with open(path, "wb") as out:
            out.write(base64.b64decode(self.ask("GET", f"{self.session}/screenshot")))

    def size(self, width, height):
        self.ask("POST", f"{self.session}/window/rect", {"width": width, "height": height})

    def log(self, kind):
        return self.ask("POST", f"{self.session}/se/log", {"type": kind})


def state_of(name):
    return f"document.querySelector('#enclaves [aria-label=\"Console {name}\"]')?.closest('li').querySelector('.state').innerText"


def main(url, folder, picture=None):
    with Browser(folder) as browser:
        browser.open(url)
        browser.until("location.hash === ''", "the token is not left in the address")
        browser.until("document.querySelector('#connection').className === 'live'", "the events are followed")
        browser.until(f"{state_of('sim')} === 'running'", "an enclave is shown")
        # The drawing: as many cores as there are, and the one of `sim` in its colour.
        browser.until("document.querySelectorAll('#topology rect.owned.core, #topology rect.core, #topology g rect.owned').length > 1",
                      "cores are drawn")
        browser.until("[...document.querySelectorAll('#topology .owner')].some((one) => one.textContent === 'sim')",
                      "a core has its owner's name")
        # Segments with who is attached.
        browser.until("[...document.querySelectorAll('#segments li')].some((one) => "
                      "/sim\\s*→\\s*melt.frames[^]*→\\s*viz/.test(one.innerText))", "arrows from the maker to the reader")
        browser.until("/♥ \\d+ s of 100 s/.test(document.querySelector('#enclaves').innerText)", "a sign of life is shown")
        browser.until("document.querySelector('#services').innerText.includes('greeting')", "a published name is shown")

        # Keys: the first enclave, its console, a pause and its end.
        browser.press("j")
        browser.until("document.querySelector('#enclaves .chosen .name').innerText === 'sim'", "a key chooses")
        browser.until("document.querySelector('#topology .chosen') !== null", "its core is marked")
        browser.press("p")
        browser.until(f"{state_of('sim')} === 'paused'", "it is paused")
        browser.click("[aria-label='Resume sim']")
        browser.until(f"{state_of('sim')} === 'running'", "it goes on")
        browser.press("c")
        browser.until("document.querySelector('.console')?.innerText.includes('made')", "its console is shown")
        if picture:
            browser.picture(picture)
        browser.press("t")
        browser.until("document.documentElement.dataset.theme === 'dark'", "dark")
        browser.press("d")
        browser.until("document.querySelector('#confirm').open", "what cannot be undone is asked for")
        browser.click("#confirm button[value='']")
        browser.until("!document.querySelector('#confirm').open", "the question is gone")
        browser.until(f"{state_of('sim')} === 'running'", "a question that was refused changes nothing")
        browser.press("d")
        browser.click("#confirm-yes")
        browser.until(f"{state_of('sim')} === undefined", "it is deleted")
        browser.until("document.querySelector('#events').innerText.includes('enclave sim gone')", "the event is shown")

        # A phone: nothing is wider than the screen.
        browser.size(400, 800)
        browser.until("document.documentElement.scrollWidth <= window.innerWidth", "it fits a phone")

        errors = [one for one in browser.log("browser") if one["level"] == "SEVERE"]
        assert not errors, errors
        asked = [json.loads(one["message"])["message"] for one in browser.log("performance")]
        hosts = {re.sub(r"^(\w+://[^/]*)/.*", r"\1", one["params"]["request"]["url"]) for one in asked
                 if one["method"] == "Network.requestWillBeSent"}
        own = re.match(r"http://[^/]*", url)[0]
        assert {one for one in hosts if not one.startswith(("data:", "chrome"))} == {own}, hosts
    print("good")


main(*sys.argv[1:])
