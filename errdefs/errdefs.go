// Package errdefs holds the error classes of SmolVM. A class says what kind of failure an error is, and is mapped once,
// here, to an HTTP status, a CLI exit code and the JSON code from which the SDKs pick their exception.
//
// Layer: leaf. Every package may import it; it imports none of ours.
package errdefs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Class is the kind of a failure. Its string value is the JSON code and is stable.
type Class string

// The classes. Internal is what an error without a class counts as.
const (
	Invalid       Class = "invalid"        // the caller asked for something that cannot be
	NotFound      Class = "not_found"      // no such VM, image, file, process
	AlreadyExists Class = "already_exists" // the name is taken
	WrongState    Class = "wrong_state"    // not possible in the VM's present state
	Timeout       Class = "timeout"        // a deadline passed
	Unavailable   Class = "unavailable"    // no command channel to the guest or the supervisor
	Host          Class = "host"           // the host lacks a tool, a permission, a device
	Image         Class = "image"          // an image or kernel cannot be built, found or trusted
	Network       Class = "network"        // the network of a VM or the way to a registry
	Engine        Class = "engine"         // the virtual machine monitor failed
	Denied        Class = "denied"         // a policy or permission forbids it
	Exhausted     Class = "exhausted"      // a limit or a resource is used up
	Internal      Class = "internal"       // a fault of SmolVM's own
)

// facts is the one table that maps a class to the outer worlds.
func (c Class) facts() (status, exit int) {
	switch c {
	case Invalid:
		return http.StatusBadRequest, 2
	case NotFound:
		return http.StatusNotFound, 1
	case AlreadyExists, WrongState:
		return http.StatusConflict, 1
	case Timeout:
		return http.StatusGatewayTimeout, 1
	case Unavailable:
		return http.StatusServiceUnavailable, 1
	case Denied:
		return http.StatusForbidden, 1
	case Exhausted:
		return http.StatusTooManyRequests, 1
	case Host, Image, Network, Engine, Internal:
		return http.StatusInternalServerError, 1
	}
	return http.StatusInternalServerError, 1
}

// HTTPStatus returns the status code that an HTTP answer of this class carries.
func (c Class) HTTPStatus() int { s, _ := c.facts(); return s }

// ExitCode returns the exit status of a management command that fails with this class: 2 for wrong usage, else 1.
// (run and exec keep 124 to 127 for themselves, as shells do.)
func (c Class) ExitCode() int { _, e := c.facts(); return e }

// Classes returns every class, for tables and tests.
func Classes() []Class {
	return []Class{
		Invalid, NotFound, AlreadyExists, WrongState, Timeout, Unavailable, Host, Image, Network, Engine,
		Denied, Exhausted, Internal,
	}
}

// Error is a failure with its class: what failed and why, and, where one helps, the command that mends it.
type Error struct {
	Class  Class
	Remedy string // a command or a short instruction; may be empty
	err    error
}

// Errorf makes an error of class c. %w wraps as in fmt.Errorf.
func (c Class) Errorf(format string, args ...any) *Error {
	return &Error{Class: c, err: fmt.Errorf(format, args...)}
}

// WithRemedy returns a copy of e that tells how to mend the failure.
func (e *Error) WithRemedy(format string, args ...any) *Error {
	d := *e
	d.Remedy = fmt.Sprintf(format, args...)
	return &d
}

func (e *Error) Error() string { return e.err.Error() }

// Unwrap gives the cause, so that errors.Is and errors.As see through the class.
func (e *Error) Unwrap() error { return e.err }

// ClassOf returns the class of the outermost classified error in err's chain. A bare context deadline is Timeout,
// anything else without a class Internal. ClassOf(nil) is "".
func ClassOf(err error) Class {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return Timeout
	}
	return Internal
}

// Is reports whether err is of class c.
func Is(err error, c Class) bool { return err != nil && ClassOf(err) == c }

// RemedyOf returns the first remedy found in err's chain, or "".
func RemedyOf(err error) string {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return ""
		}
		if e.Remedy != "" {
			return e.Remedy
		}
		err = e.err
	}
	return ""
}

// Problem is an error as it crosses a process boundary (control socket, HTTP API).
type Problem struct {
	Code    Class  `json:"code"`
	Message string `json:"message"`
	Remedy  string `json:"remedy,omitempty"`
}

// ToProblem flattens err for the other side.
func ToProblem(err error) Problem {
	return Problem{Code: ClassOf(err), Message: err.Error(), Remedy: RemedyOf(err)}
}

// Err turns p back into an error. An unknown code becomes Internal.
func (p Problem) Err() error {
	c := Internal
	for _, known := range Classes() {
		if p.Code == known {
			c = known
		}
	}
	return &Error{Class: c, Remedy: p.Remedy, err: errors.New(p.Message)}
}
