package qemu

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/engine/qemu/qmp"
)

// event takes what QEMU tells unasked. It runs in the goroutine that reads, so it neither blocks nor asks back.
func (m *machine) event(e qmp.Event) {
	switch e.Name {
	case "STOP":
		m.stopped()
	case "RESUME":
		m.mu.Lock()
		was := m.paused
		m.paused = false
		m.mu.Unlock()
		if was { // a machine's first start is one, too
			m.emit(engine.EventResumed, "")
		}
	case "SHUTDOWN":
		var d struct {
			Reason string `json:"reason"`
		}
		_ = json.Unmarshal(e.Data, &d)
		m.mu.Lock()
		m.shutdown = d.Reason
		m.mu.Unlock()
		m.emit(engine.EventShutdown, d.Reason)
	case "RESET":
		m.emit(engine.EventReset, "")
	case "GUEST_PANICKED":
		m.emit(engine.EventPanic, "")
	case "BLOCK_IO_ERROR":
		m.emit(engine.EventDiskError, diskError(e.Data))
	}
}

// stopped tells a pause that we asked for from a machine that QEMU gave up on.
func (m *machine) stopped() {
	m.mu.Lock()
	asked := m.pause
	m.paused = m.paused || asked
	m.mu.Unlock()
	if asked {
		m.emit(engine.EventPaused, "")
		return
	}
	go m.askWhy()
}

// askWhy finds out why the virtual CPUs stand still.
func (m *machine) askWhy() {
	<-m.ready
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) //nolint:forbidigo // an event has no caller
	defer cancel()
	var st struct {
		Status string `json:"status"`
	}
	if err := m.qmp.Execute(ctx, "query-status", nil, &st); err != nil {
		m.log.Warn("the virtual CPUs stand still", "error", err)
		return
	}
	switch st.Status {
	case "running", "shutdown", "finish-migrate":
		return
	}
	m.emit(engine.EventBroken, strings.TrimSuffix(fmt.Sprintf("%s; %s", st.Status, m.Stderr.Lines(2)), "; "))
}

func (m *machine) emit(kind engine.EventKind, detail string) {
	if m.report != nil {
		m.report(engine.Event{Kind: kind, Detail: detail})
	}
}

// diskError words an error of a drive.
func diskError(data json.RawMessage) string {
	var d struct {
		Node      string `json:"node-name"`
		Operation string `json:"operation"`
		NoSpace   bool   `json:"nospace"`
		Reason    string `json:"reason"`
	}
	_ = json.Unmarshal(data, &d)
	id := strings.TrimPrefix(d.Node, nodePrefix)
	if d.NoSpace {
		return fmt.Sprintf("%s: %s: the host has no space left", id, d.Operation)
	}
	return fmt.Sprintf("%s: %s: %s", id, d.Operation, d.Reason)
}

// blockDevice is an entry of query-blockstats.
type blockDevice struct {
	QDev  string `json:"qdev"` // of the device that the guest sees; a path where it has no name
	Stats struct {
		ReadBytes  uint64 `json:"rd_bytes"`
		WriteBytes uint64 `json:"wr_bytes"`
		Reads      uint64 `json:"rd_operations"`
		Writes     uint64 `json:"wr_operations"`
		Flushes    uint64 `json:"flush_operations"`
	} `json:"stats"`
}

// drive is the drive's id, for a device of ours.
func (d blockDevice) drive() (string, bool) {
	_, id, ok := strings.Cut(d.QDev, devicePrefix)
	id, _, _ = strings.Cut(id, "/")
	return id, ok
}
