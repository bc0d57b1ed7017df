package errdefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestClassSurvivesWrapping(t *testing.T) {
	base := NotFound.Errorf("vm %q: %w", "a", io.EOF).WithRemedy("run: smolvm ls -a")
	err := fmt.Errorf("exec: %w", base)
	if !Is(err, NotFound) {
		t.Errorf("ClassOf = %q, want %q", ClassOf(err), NotFound)
	}
	if !errors.Is(err, io.EOF) {
		t.Error("the cause is lost")
	}
	if got := RemedyOf(err); got != "run: smolvm ls -a" {
		t.Errorf("RemedyOf = %q", got)
	}
	if got := err.Error(); got != `exec: vm "a": EOF` {
		t.Errorf("Error = %q", got)
	}
}

func TestRemedyOfInnerError(t *testing.T) {
	inner := Host.Errorf("no qemu").WithRemedy("apt-get install qemu-system-x86")
	if got := RemedyOf(Engine.Errorf("start: %w", inner)); got != inner.Remedy {
		t.Errorf("RemedyOf = %q, want the inner one", got)
	}
}

func TestUnclassified(t *testing.T) {
	if got := ClassOf(io.EOF); got != Internal {
		t.Errorf("ClassOf(EOF) = %q", got)
	}
	if got := ClassOf(fmt.Errorf("x: %w", context.DeadlineExceeded)); got != Timeout {
		t.Errorf("ClassOf(deadline) = %q", got)
	}
	if got := ClassOf(nil); got != "" {
		t.Errorf("ClassOf(nil) = %q", got)
	}
}

func TestProblemRoundTrip(t *testing.T) {
	for _, c := range Classes() {
		err := ToProblem(c.Errorf("why").WithRemedy("do")).Err()
		if ClassOf(err) != c || err.Error() != "why" || RemedyOf(err) != "do" {
			t.Errorf("%s: came back as %s %q %q", c, ClassOf(err), err, RemedyOf(err))
		}
		if c.HTTPStatus() < 400 || c.ExitCode() < 1 {
			t.Errorf("%s: status %d, exit code %d", c, c.HTTPStatus(), c.ExitCode())
		}
	}
	if got := ClassOf((Problem{Code: "of-the-future", Message: "x"}).Err()); got != Internal {
		t.Errorf("unknown code became %q", got)
	}
}
