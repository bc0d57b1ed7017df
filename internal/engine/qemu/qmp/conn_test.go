package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/smolvm/smolvm/errdefs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const hello = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "x"}, "capabilities": ["oob"]}}` + "\n"

// request is what a monitor reads.
type request struct {
	Execute string `json:"execute"`
	ID      uint64 `json:"id"`
}

// serve plays a monitor: it greets, negotiates, and answers with answer.
func serve(t *testing.T, answer func(request, io.Writer)) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
	go func() {
		defer func() { _ = theirs.Close() }()
		if _, err := io.WriteString(theirs, hello); err != nil {
			return
		}
		lines := bufio.NewScanner(theirs)
		for lines.Scan() {
			var r request
			if json.Unmarshal(lines.Bytes(), &r) != nil {
				return
			}
			if r.Execute == "qmp_capabilities" {
				_, _ = fmt.Fprintf(theirs, `{"return": {}, "id": %d}`+"\r\n", r.ID)
				continue
			}
			answer(r, theirs)
		}
	}()
	return ours
}

func TestExecute(t *testing.T) {
	var events []string
	conn := serve(t, func(r request, w io.Writer) {
		switch r.Execute {
		case "query-status":
			_, _ = fmt.Fprintf(w, `{"timestamp": {"seconds": 1}, "event": "STOP"}`+"\n"+`{"return": {"status": "paused"}, "id": %d}`+"\n", r.ID)
		case "hang":
		default:
			_, _ = fmt.Fprintf(w, `{"return": {}, "id": 999}`+"\n"+`{"error": {"class": "CommandNotFound", "desc": "no such"}, "id": %d}`+"\n", r.ID)
		}
	})
	c, err := Open(t.Context(), conn, func(e Event) { events = append(events, e.Name) })
	if err != nil {
		t.Fatal(err)
	}
	if v := c.Version(); v != (Version{7, 2, 22}) {
		t.Errorf("version %v", v)
	}
	var st struct{ Status string }
	if err := c.Execute(t.Context(), "query-status", nil, &st); err != nil || st.Status != "paused" || len(events) != 1 {
		t.Errorf("%v, %v, %v", st, err, events)
	}
	var refusal *Error
	if err := c.Execute(t.Context(), "nonsense", map[string]int{"a": 1}, nil); !errors.As(err, &refusal) || refusal.Class != "CommandNotFound" {
		t.Errorf("a refusal: %v", err)
	}
	brief, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Execute(brief, "hang", nil, nil); errdefs.ClassOf(err) != errdefs.Timeout {
		t.Errorf("no answer: %v", err)
	}
	_ = c.Close()
	<-c.Done()
	if err := c.Execute(t.Context(), "query-status", nil, nil); err == nil {
		t.Error("executed on a closed connection")
	}
}

// TestMonitorGoes: who waits for an answer learns that none will come.
func TestMonitorGoes(t *testing.T) {
	conn := serve(t, func(_ request, w io.Writer) { _ = w.(io.Closer).Close() })
	c, err := Open(t.Context(), conn, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Execute(t.Context(), "quit", nil, nil); err == nil || !strings.Contains(err.Error(), "the monitor is gone") {
		t.Errorf("%v", err)
	}
	<-c.Done()
}

func TestOpenRefuses(t *testing.T) {
	for name, says := range map[string]string{
		"nothing":     "",
		"no greeting": `{"event": "STOP"}` + "\n",
		"no JSON":     "QEMU monitor ready\n",
		"endless":     `{"QMP": "` + strings.Repeat("x", 2*maxMessage),
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go func() {
				_, _ = io.WriteString(theirs, says)
				_ = theirs.Close()
			}()
			if c, err := Open(t.Context(), ours, nil); err == nil {
				_ = c.Close()
				t.Error("opened")
			}
		})
	}
	t.Run("silent", func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer func() { _ = theirs.Close() }()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := Open(ctx, ours, nil); errdefs.ClassOf(err) != errdefs.Timeout {
			t.Errorf("%v", err)
		}
	})
}

// FuzzOpen: whatever a monitor says, reading ends when it does.
func FuzzOpen(f *testing.F) {
	f.Add([]byte(hello + `{"return": {}, "id": 1}` + "\n" + `{"event": "STOP", "data": {}}` + "\n"))
	f.Add([]byte(hello + `{"error": {"class": "x", "desc": "y"}}` + "\n"))
	f.Add([]byte(`{"QMP": null}`))
	f.Fuzz(func(t *testing.T, says []byte) {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		go func() {
			_, _ = theirs.Write(says)
			_ = theirs.Close()
		}()
		c, err := Open(t.Context(), ours, func(Event) {})
		if err == nil {
			<-c.Done()
		}
	})
}
