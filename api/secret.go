package api

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

// Limits of secrets. A shorter value could not be told from other text in a response, a longer one fits in no header.
const (
	MaxSecrets      = 64
	MaxSecretHosts  = 32
	MinSecretBytes  = 8
	MaxSecretBytes  = 8 << 10
	maxSecretPrefix = 32
	maxSecretSource = 4096

	MinPlaceholderBytes = 16
	MaxPlaceholderBytes = 256
)

// Secret is a value that commands in a VM use without having it: the variable Name holds a placeholder, in whose place the
// gateway puts the value into requests to Hosts. This is what is kept of it, and shown; the value is a SecretValue.
type Secret struct {
	Name string `json:"name"` // a variable in the environment of all commands
	// Hosts are who may get the value: names, and "*.example.com" for all names below one.
	Hosts []string `json:"hosts"`
	// Source says where whoever starts the VM finds the value: env:VARIABLE, file:PATH or cmd:COMMAND. Empty: it is given each time.
	Source string `json:"source,omitempty"`
	// Prefix is what the placeholder begins with, for programs that look at that: "sk-".
	Prefix string `json:"prefix,omitempty"`
	// Query lets the value be put into the query of a URL too, which servers like to log.
	Query bool `json:"query,omitempty"`
	// Placeholder is what the guest has. It is made when the VM is.
	Placeholder string `json:"placeholder,omitempty" readOnly:"true"`
}

// SecretValue is the value of a secret: a request has it, and no record and no answer. As text it is three stars.
type SecretValue string

// SecretValues are values by the names of their secrets.
type SecretValues map[string]SecretValue

// SecretChange gives secrets of a VM other values, or other sources of them.
type SecretChange struct {
	// Values are in use at once, if the VM runs. They are kept in no record.
	Values SecretValues `json:"values,omitempty" writeOnly:"true"`
	// Sources are where the values are found at the next starts.
	Sources map[string]string `json:"sources,omitempty"`
}

// Validate refuses what cannot be.
func (c SecretChange) Validate() error {
	if len(c.Values) == 0 && len(c.Sources) == 0 {
		return errdefs.Invalid.Errorf("secrets: there is nothing to set")
	}
	for name, v := range c.Values {
		if err := v.Validate(name); err != nil {
			return err
		}
	}
	for name, source := range c.Sources {
		if err := ValidateSecretSource(name, source); err != nil {
			return err
		}
	}
	return nil
}

// String is the names of those that are set, sorted.
func (c SecretChange) String() string {
	names := slices.Concat(slices.Collect(maps.Keys(c.Values)), slices.Collect(maps.Keys(c.Sources)))
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

// Apply returns secrets with other sources.
func (c SecretChange) Apply(list []Secret) ([]Secret, error) {
	list = slices.Clone(list)
	for name, source := range c.Sources {
		i := slices.IndexFunc(list, func(s Secret) bool { return s.Name == name })
		if i < 0 {
			return nil, errdefs.Invalid.Errorf("the VM has no secret %q", name).WithRemedy("secrets are named when a VM is made: smolvm create --secret NAME=env:VARIABLE@HOST")
		}
		list[i].Source = source
	}
	return list, nil
}

// Format keeps the value to itself, whatever the verb.
func (SecretValue) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "***") }

// LogValue keeps the value to itself.
func (SecretValue) LogValue() slog.Value { return slog.StringValue("***") }

// Validate refuses what cannot be the value of the secret called name: it goes into headers. It never tells the value.
func (v SecretValue) Validate(name string) error {
	switch {
	case len(v) == 0:
		return errdefs.Invalid.Errorf("secret %s: its value is empty", name)
	case len(v) < MinSecretBytes:
		return errdefs.Invalid.Errorf("secret %s: its value has fewer than %d bytes, which cannot be told from other text", name, MinSecretBytes)
	case len(v) > MaxSecretBytes:
		return errdefs.Invalid.Errorf("secret %s: its value has %d bytes, more than %d", name, len(v), MaxSecretBytes)
	case strings.ContainsFunc(string(v), func(c rune) bool { return c < ' ' || c == 0x7f }):
		return errdefs.Invalid.Errorf("secret %s: its value has a line's end or another control character, which no header may hold", name)
	case strings.Trim(string(v), " ") != string(v):
		return errdefs.Invalid.Errorf("secret %s: its value begins or ends with a space, which a header loses", name)
	}
	return nil
}

var (
	secretName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
	secretText  = regexp.MustCompile(`^[A-Za-z0-9_.~-]*$`) // what no client encodes, wherever it puts it
	secretLabel = regexp.MustCompile(`^(\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})+$`)
)

// Validate refuses what cannot be a secret.
func (s Secret) Validate() error {
	switch {
	case !secretName.MatchString(s.Name):
		return errdefs.Invalid.Errorf("secret %q: its name is a variable's: letters, digits and _", s.Name)
	case len(s.Hosts) == 0:
		return errdefs.Invalid.Errorf("secret %s: it is for no host", s.Name).WithRemedy("name the hosts that may get it: %s=env:%s@api.example.com", s.Name, s.Name)
	case len(s.Hosts) > MaxSecretHosts:
		return errdefs.Invalid.Errorf("secret %s: %d hosts are more than %d", s.Name, len(s.Hosts), MaxSecretHosts)
	case len(s.Prefix) > maxSecretPrefix || !secretText.MatchString(s.Prefix):
		return errdefs.Invalid.Errorf("secret %s: the prefix %q is not at most %d of letters, digits and ._~-", s.Name, s.Prefix, maxSecretPrefix)
	case s.Placeholder != "" && (len(s.Placeholder) < MinPlaceholderBytes || len(s.Placeholder) > MaxPlaceholderBytes || !secretText.MatchString(s.Placeholder)):
		return errdefs.Invalid.Errorf("secret %s: its placeholder is not %d to %d of letters, digits and ._~-", s.Name, MinPlaceholderBytes, MaxPlaceholderBytes)
	}
	for i, host := range s.Hosts {
		if err := validateSecretHost(host); err != nil {
			return errdefs.Invalid.Errorf("secret %s: %w", s.Name, err)
		}
		if slices.Contains(s.Hosts[:i], host) {
			return errdefs.Invalid.Errorf("secret %s: the host %s is named twice", s.Name, host)
		}
	}
	return ValidateSecretSource(s.Name, s.Source)
}

// validateSecretHost is strict: who may get a secret is written as the gateway compares it.
func validateSecretHost(host string) error {
	suffix, below := strings.CutPrefix(host, "*.")
	last := host[strings.LastIndex(host, ".")+1:]
	switch {
	case strings.ToLower(host) != host:
		return errdefs.Invalid.Errorf("the host %q is not in lower case", host)
	case below && suffix != "" && !strings.Contains(suffix, "."):
		return errdefs.Invalid.Errorf("the host %q stands for all names of a top-level domain", host)
	case len(host) > 253 || !secretLabel.MatchString(host):
		return errdefs.Invalid.Errorf("the host %q is neither a name such as api.example.com nor *.example.com for all names below one", host)
	case last[0] >= '0' && last[0] <= '9':
		return errdefs.Invalid.Errorf("the host %q is an address; a secret is for names", host)
	case suffix == "smolvm.internal" || strings.HasSuffix(suffix, ".smolvm.internal"):
		return errdefs.Invalid.Errorf("the host %q is this host, to which no secret is sent", host)
	}
	return nil
}

// ValidateSecretSource refuses what is no source of a secret's value.
func ValidateSecretSource(name, source string) error {
	if source == "" {
		return nil
	}
	kind, where, _ := strings.Cut(source, ":")
	switch {
	case len(source) > maxSecretSource:
		return errdefs.Invalid.Errorf("secret %s: its source has %d bytes, more than %d", name, len(source), maxSecretSource)
	case strings.Contains(source, "\x00"):
		return errdefs.Invalid.Errorf("secret %s: its source contains a NUL byte", name)
	case kind != "env" && kind != "file" && kind != "cmd":
		// It may be a value, given by mistake: it is not told.
		return errdefs.Invalid.Errorf("secret %s: its source is none of env:VARIABLE, file:PATH and cmd:COMMAND", name).
			WithRemedy("a value does not belong on a command line, where others see it: put it into a variable and name that: %s=env:%s@HOST", name, name)
	case strings.TrimSpace(where) == "":
		return errdefs.Invalid.Errorf("secret %s: %s: names nothing", name, kind)
	case kind == "env" && !secretName.MatchString(where):
		return errdefs.Invalid.Errorf("secret %s: %q is no variable's name", name, where)
	}
	return nil
}

// ParseSecret reads a secret as the command line has it: NAME=SOURCE@HOST[,HOST…][;prefix=TEXT][;query]. The last @ ends the
// source, which may hold others.
func ParseSecret(text string) (Secret, error) {
	name, rest, ok := strings.Cut(text, "=")
	s := Secret{Name: name}
	if !ok || !secretName.MatchString(name) {
		return Secret{}, errdefs.Invalid.Errorf("a secret is written as NAME=SOURCE@HOST").WithRemedy("for example: --secret GITHUB_TOKEN=env:GITHUB_TOKEN@api.github.com")
	}
	source, to, ok := cutLast(rest, "@")
	if !ok {
		return Secret{}, errdefs.Invalid.Errorf("secret %s: it is for no host", name).WithRemedy("name the hosts that may get it: %s=env:%s@api.example.com", name, name)
	}
	s.Source = source
	parts := strings.Split(to, ";")
	s.Hosts = strings.Split(strings.ToLower(parts[0]), ",")
	for _, option := range parts[1:] {
		key, value, given := strings.Cut(option, "=")
		switch {
		case key == "prefix" && given && s.Prefix == "":
			s.Prefix = value
		case key == "query" && !given:
			s.Query = true
		default:
			return Secret{}, errdefs.Invalid.Errorf("secret %s: %q is neither prefix=TEXT nor query", name, option)
		}
	}
	if s.Source == "" {
		return Secret{}, errdefs.Invalid.Errorf("secret %s: it has no source", name).WithRemedy("name where its value is: %s=env:%s@%s", name, name, parts[0])
	}
	return s, s.Validate()
}

// String is the secret as ParseSecret reads it. There is no value in it.
func (s Secret) String() string {
	text := s.Name + "=" + s.Source + "@" + strings.Join(s.Hosts, ",")
	if s.Prefix != "" {
		text += ";prefix=" + s.Prefix
	}
	if s.Query {
		text += ";query"
	}
	return text
}

// ValidateSecrets refuses secrets that cannot be together, or with an environment's variables.
func ValidateSecrets(list []Secret, env map[string]string) error {
	if len(list) > MaxSecrets {
		return errdefs.Invalid.Errorf("%d secrets are more than %d", len(list), MaxSecrets)
	}
	for i, s := range list {
		if err := s.Validate(); err != nil {
			return err
		}
		if slices.ContainsFunc(list[:i], func(o Secret) bool { return o.Name == s.Name }) {
			return errdefs.Invalid.Errorf("there are two secrets %s", s.Name)
		}
		if v, given := env[s.Name]; given && v != s.Placeholder {
			return errdefs.Invalid.Errorf("%s is both a variable and a secret", s.Name)
		}
	}
	return nil
}
