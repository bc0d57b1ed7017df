package firecracker

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/smolvm/smolvm/internal/engine"
	"github.com/smolvm/smolvm/internal/sys/tail"
)

func TestOrders(t *testing.T) {
	for _, tt := range []struct {
		name, console string
		want          order
	}{
		{"nothing", "booting\n", orderNone},
		{"halt", "[    3.123456] reboot: System halted\r\n", orderHalt},
		{"with a caller", "[    3.123456][    T1] reboot: Power down\n", orderHalt},
		{"as 6.12 says it", "[   22.870444] reboot: Power off not available: System halted instead\r\n", orderHalt},
		{"after a prompt", "$ [   13.123456] reboot: Restarting system\n", orderReboot},
		{"panic, then its reset", "[    3.1] x\n[    3.123456] Kernel panic - not syncing: no init\n[    3.200000] reboot: Restarting system\n", orderPanic},
		{"somebody else's words", "reboot: System halted\nKernel panic - not syncing\n", orderNone},
		{"in a long line", strings.Repeat("x", maxOrder) + "[    3.123456] reboot: System halted\n", orderNone},
		{"not ended", "[    3.123456] reboot: System halted", orderNone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, size := range []int{1, 7, 1 << 16} {
				halts := 0
				var out bytes.Buffer
				c := &console{to: &out, halted: func() { halts++ }}
				c.read(&chunks{strings.NewReader(tt.console), size})
				if got := c.order(); got != tt.want || (halts > 0) != (tt.want == orderHalt) || out.String() != tt.console {
					t.Errorf("in steps of %d: order %d (%d halts), want %d; passed on: %q", size, got, halts, tt.want, out.String())
				}
			}
		})
	}
}

// chunks reads a few bytes at a time.
type chunks struct {
	r io.Reader
	n int
}

func (c *chunks) Read(p []byte) (int, error) { return c.r.Read(p[:min(len(p), c.n)]) }

// FuzzConsole: what a guest prints is passed on as it is, and little of it is kept.
func FuzzConsole(f *testing.F) {
	f.Add([]byte("[    3.123456] reboot: System halted\n"), 3)
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		var out bytes.Buffer
		c := &console{to: &out, halted: func() {}}
		c.read(&chunks{bytes.NewReader(in), max(1, step&0xffff)})
		if !bytes.Equal(in, out.Bytes()) || len(c.line) > maxOrder {
			t.Fatalf("%d bytes became %d, %d are kept", len(in), out.Len(), len(c.line))
		}
	})
}

func TestMetrics(t *testing.T) {
	m := newMetrics([]engine.Drive{{ID: "disk"}, {ID: "more-disk"}})
	next, _ := m.now()
	m.read(strings.NewReader(`{"block_disk": {"write_bytes": 10, "write_count": 1, "flush_count": 2}, "block": {"write_bytes": 99}}
no json
{"block_more_disk": {"read_bytes": 7, "read_count": 3}, "block_disk": {"write_bytes": 5, "write_count": "many"}}
{"block_disk": {"write_bytes": 5, "write_count": 1}}
` + strings.Repeat("x", maxMetrics+1) + "\n"))
	select {
	case <-next:
	default:
		t.Error("nobody is told of a line")
	}
	want := engine.BlockStats{WriteBytes: 15, Writes: 2, Flushes: 2}
	if got := m.blocks(); got["disk"] != want || got["more-disk"] != (engine.BlockStats{ReadBytes: 7, Reads: 3}) || len(got) != 2 {
		t.Errorf("%+v", got)
	}
	if _, ended := m.now(); !ended {
		t.Error("its end is not told")
	}
}

// FuzzMetrics: a monitor that is not itself any more writes what it likes.
func FuzzMetrics(f *testing.F) {
	f.Add([]byte(`{"block_disk": {"write_bytes": 10}}` + "\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		m := newMetrics([]engine.Drive{{ID: "disk"}})
		m.read(bytes.NewReader(in))
		if len(m.blocks()) != 1 {
			t.Fatal("it made up a drive")
		}
	})
}

// TestDiskErrors: a drive's failure is told, not each of a thousand, and not how often we call.
func TestDiskErrors(t *testing.T) {
	var events []engine.Event
	m := &machine{process: process{log: &tail.Buffer{}}, report: func(e engine.Event) { events = append(events, e) }}
	line := "2026-01-01T00:00:00.0 [anonymous-instance:main:ERROR:src/x.rs:1] Failed to execute Out virtio block request: FileEngine(Sync(Transfer(No space left on device (os error 28))))\n"
	m.readLog(strings.NewReader("[x:fc_api:INFO] The API server received a Put request on \"/actions\".\n" + strings.Repeat(line, 1000) + strings.Repeat("y", 1<<20)))
	if len(events) != 1 || events[0].Kind != engine.EventDiskError || !strings.HasPrefix(events[0].Detail, "Out: FileEngine") {
		t.Errorf("%d events: %+v", len(events), events)
	}
	if got := m.process.log.Lines(2000); strings.Contains(got, "API server") || !strings.Contains(got, "Failed to execute") {
		t.Errorf("the log keeps %.200q", got)
	}
}
