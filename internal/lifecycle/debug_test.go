package lifecycle

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// TestDebug: the log tells what happens to a VM, in its order.
func TestDebug(t *testing.T) {
	m := rig(t, "")
	var b bytes.Buffer
	m.log = slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	started(t, m, "x")
	if _, res := run(t, m, "x", "true"); res.ExitCode != 0 {
		t.Errorf("%+v", res)
	}
	if err := m.Stop(t.Context(), "x", StopOptions{}); err != nil {
		t.Error(err)
	}
	if err := m.Remove(t.Context(), "x", false); err != nil {
		t.Error(err)
	}
	rest := b.String()
	for _, want := range []string{"msg=created vm=x", `msg="the supervisor has started" vm=x`, "stage=boot", "msg=running vm=x", "msg=connected vm=x", "msg=ending vm=x", "msg=ended vm=x", "msg=removing vm=x"} {
		_, after, found := strings.Cut(rest, want)
		if !found {
			t.Fatalf("no %q after that in\n%s", want, b.String())
		}
		rest = after
	}
}
