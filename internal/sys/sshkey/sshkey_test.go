package sshkey

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	const good = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIItpPbk9jOQqNZ/u/U25yBS+1NlRuP8AtGWCQ2pubbBC"
	for _, line := range []string{good, good + " me@here and there", "  " + good, strings.Replace(good, " ", "\t", 1)} {
		if err := Check(line); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
	for line, says := range map[string]string{
		"":                                      "not a type",
		"ssh-ed25519":                           "not a type",
		"ssh-dss AAAAB3NzaC1kc3M=":              "does not begin",
		`command="x" ` + good:                   "does not begin",
		"ssh-ed25519-cert-v01@openssh.com AAAA": "does not begin",
		"ssh-rsa " + good[12:]:                  "its content is not",
		"ssh-ed25519 AAAA":                      "its content is not",
		"ssh-ed25519 %%%%":                      "no base64",
		good + "\nssh-ed25519 x":                "more than one line",
		good + " \x1b[31m":                      "control characters",
		good + strings.Repeat("x", maxKeyBytes): "longer than any key",
		"-----BEGIN OPENSSH PRIVATE KEY-----":   "the public one is meant",
		"ssh-ed25519 " + strings.Repeat("A", 8): "its content is not",
	} {
		err := Check(line)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.60q: %v, want %q", line, err, says)
		}
		if err != nil && strings.Contains(err.Error(), "AAAA") {
			t.Errorf("the key is shown: %v", err)
		}
	}
}
