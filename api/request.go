package api

import (
	"strings"

	"github.com/smolvm/smolvm/errdefs"
)

// Limits of what a rule says about requests.
const (
	MaxResponseKB = 1_000_000_000

	maxMethodsPerRule = 16
	maxMethod         = 32
	maxPathsPerRule   = 32
)

// OfRequests reports whether a rule says something about requests of HTTP, so that it is for nothing else.
func (r NetworkRule) OfRequests() bool {
	return len(r.Methods) > 0 || len(r.Paths) > 0 || r.MaxResponseKB != 0 || r.ResponseKBps != 0
}

// parseRequests reads what stands behind a rule's "=".
func (r *NetworkRule) parseRequests(text string) error {
	if text == "opaque" {
		r.Opaque = true
		return nil
	}
	methods, paths, given := strings.Cut(text, ":")
	switch {
	case methods == "" || given && paths == "":
		return errdefs.Invalid.Errorf("%q is neither METHODS, METHODS:PATHS nor opaque", text).WithRemedy("GET, GET,HEAD:/repos/**, *:/v1/*")
	case methods != "*":
		r.Methods = strings.Split(methods, ",")
	case !given:
		return errdefs.Invalid.Errorf("all methods of all paths are what it means without =%s", text)
	}
	if given {
		r.Paths = splitGlobs(paths)
	}
	return nil
}

// requests is what stands behind a rule's target in its text.
func (r NetworkRule) requests() string {
	switch {
	case r.Opaque:
		return "=opaque"
	case len(r.Methods) == 0 && len(r.Paths) == 0:
		return ""
	}
	text := "=*"
	if len(r.Methods) > 0 {
		text = "=" + strings.Join(r.Methods, ",")
	}
	if len(r.Paths) > 0 {
		text += ":" + strings.Join(r.Paths, ",")
	}
	return text
}

func (r NetworkRule) validateRequests() error {
	if r.MaxResponseKB < 0 || r.MaxResponseKB > MaxResponseKB {
		return errdefs.Invalid.Errorf("max_response_kb: %d is not within 0 (no bound) to %d", r.MaxResponseKB, MaxResponseKB)
	}
	if r.ResponseKBps < 0 || r.ResponseKBps > MaxRateKBps {
		return errdefs.Invalid.Errorf("response_kbps: %d is not within 0 (no bound) to %d", r.ResponseKBps, MaxRateKBps)
	}
	if !r.Opaque && !r.OfRequests() {
		return nil
	}
	what := "methods, paths and bounds of responses"
	if r.Opaque {
		what = "opaque"
	}
	switch {
	case r.Opaque && r.OfRequests():
		return errdefs.Invalid.Errorf("what is opaque shows no requests: methods, paths and bounds of responses cannot be held to").
			WithRemedy("leave out either opaque or them")
	case r.Action != RuleAllow:
		return errdefs.Invalid.Errorf("%s: only an allow rule takes them", what).WithRemedy("allow what may be; the rest is denied in mode allow")
	case r.CIDR != "":
		return errdefs.Invalid.Errorf("%s: only a rule by host takes them", what).WithRemedy("name the host whose requests are meant")
	case r.Proto == "udp":
		return errdefs.Invalid.Errorf("%s: only TCP has them", what)
	}
	return validateMethodsAndPaths(r.Methods, r.Paths)
}

func validateMethodsAndPaths(methods, paths []string) error {
	if len(methods) > maxMethodsPerRule {
		return errdefs.Invalid.Errorf("%d methods are more than %d", len(methods), maxMethodsPerRule)
	}
	for _, m := range methods {
		if err := validateMethod(m); err != nil {
			return err
		}
	}
	if len(paths) > maxPathsPerRule {
		return errdefs.Invalid.Errorf("%d paths are more than %d", len(paths), maxPathsPerRule)
	}
	for _, p := range paths {
		if _, err := ParseGlob(p); err != nil {
			return err
		}
	}
	return nil
}

func validateMethod(m string) error {
	odd := strings.ContainsFunc(m, func(c rune) bool {
		return !('A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_')
	})
	switch {
	case m == "CONNECT" || m == "TRACE":
		return errdefs.Invalid.Errorf("%s is never let through: it would be a way past the rules, or past secrets", m)
	case m == "*":
		return errdefs.Invalid.Errorf("the star does not stand among methods").WithRemedy("leave the methods out for all of them")
	case m == "" || len(m) > maxMethod || odd:
		return errdefs.Invalid.Errorf("%q is no method; they are upper case, as GET", m)
	}
	return nil
}
