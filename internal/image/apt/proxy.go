package apt

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// proxyLine is one line of `apt-config dump` that says how to reach the network: Acquire::http::Proxy,
// Acquire::https::Proxy::HOST, Acquire::http::Proxy-Auto-Detect.
var proxyLine = regexp.MustCompile(`^(Acquire::[a-z]+::Proxy(?:-[A-Za-z-]+)?(?:::[A-Za-z0-9._:-]+)?) "([^"\\\n]*)";$`)

// parseProxies picks the proxies out of the output of `apt-config dump`.
func parseProxies(dump string) []string {
	var found []string
	for line := range strings.Lines(dump) {
		if m := proxyLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil && m[2] != "" {
			found = append(found, fmt.Sprintf("%s %q", m[1], m[2]))
		}
	}
	return found
}

// Proxies returns the proxy settings of the host's apt, each as `Name "value"`. They are all that is taken from it.
func Proxies(ctx context.Context) ([]string, error) {
	tool, err := Tool("apt-config", "apt")
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, tool, "dump").Output()
	if err != nil {
		return nil, fmt.Errorf("apt-config dump: %w", err)
	}
	return parseProxies(string(out)), nil
}

// Environ is the environment for tools that use the network: a fixed path and locale, and the proxies of ours.
func Environ(extra ...string) []string {
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	for _, name := range []string{
		"http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
	} {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return append(env, extra...)
}
