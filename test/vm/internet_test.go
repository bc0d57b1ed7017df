package vm

import (
	"strings"
	"testing"
)

// TestVMInternet: what people do first works. It needs what building the image needs: Debian's mirror, and PyPI.
func TestVMInternet(t *testing.T) {
	c := program(t)
	t.Run("apt in a default VM", func(t *testing.T) {
		id := c.vm(t, "apt")
		if got := c.sh(t, id, "(apt-get update && apt-get install -y hello) >/tmp/log 2>&1 || cat /tmp/log; hello"); got != "Hello, world!\n" {
			t.Errorf("hello says %q", brief(got))
		}
	})
	t.Run("pip with just its two hosts", func(t *testing.T) {
		id := c.vm(t, "pip", "--allow", "pypi.org:443", "--allow", "files.pythonhosted.org:443")
		// Its connections are looked into: whom the server is trusted by is the host's matter.
		install := "pip install --break-system-packages --no-cache-dir requests >/tmp/log 2>&1 || cat /tmp/log"
		if got := c.sh(t, id, install+"; python3 -c 'import requests; print(len(requests.__version__) > 2)'"); got != "True\n" {
			t.Errorf("pip: %q", brief(got))
		}
		if got := c.sh(t, id, "curl -sS -m 20 http://deb.debian.org/ 2>&1; true"); !strings.Contains(got, "Could not resolve") {
			t.Errorf("another host: %q", brief(got))
		}
		if log := c.ok(t, "net", "log", id); !strings.Contains(log, "deny  dns  deb.debian.org") {
			t.Errorf("the refusal is not on record:\n%s", brief(log))
		} else if !strings.Contains(log, "GET pypi.org/simple/requests/") {
			t.Errorf("the requests are not on record:\n%s", brief(log))
		}
	})
}
