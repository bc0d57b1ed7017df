// Package sshenv writes the environment of a VM's commands for OpenSSH's server, so that logins have it too. The host and the
// agent in the guest both do, with the same outcome.
//
// Layer: leaf. It imports none of ours.
package sshenv

import (
	"fmt"
	"slices"
	"strings"
)

// File is where the server finds it.
const File = "/etc/ssh/sshd_config.d/smolvm.conf"

// maxSnippet bounds it: it must fit into one variable of a process.
const maxSnippet = 100 << 10

// Snippet is a part of sshd_config(5) that gives sessions the environment of commands, NAME=VALUE each. A value with a line end
// cannot be written there, and what a session knows better is left out.
func Snippet(entries []string) string {
	var set strings.Builder
	left := maxSnippet
	for _, entry := range slices.Sorted(slices.Values(entries)) {
		name, value, _ := strings.Cut(entry, "=")
		switch name {
		case "", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "SHLVL", "TERM", "_":
			continue
		}
		if strings.ContainsAny(entry, "\n\r") || strings.ContainsAny(name, "\"\\ \t#") {
			continue
		}
		word := fmt.Sprintf(" \"%s=%s\"", name, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value))
		if left -= len(word); left < 0 {
			break
		}
		set.WriteString(word)
	}
	text := "# Written by smolvm: the environment of the VM's commands."
	if set.Len() > 0 {
		text += "\nSetEnv" + set.String()
	}
	return text
}
