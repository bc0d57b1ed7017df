package firecracker

import (
	"bufio"
	"io"
	"regexp"
	"time"

	"github.com/smolvm/smolvm/internal/engine"
)

var (
	// ourCall is what the monitor logs of each call of ours that went well.
	ourCall = regexp.MustCompile(` (?:The )?API server received a | The request was executed successfully`)
	// diskError is what it logs of a drive's request that failed. It does not say which drive's.
	diskError = regexp.MustCompile(`Failed to execute (\S{1,32}) virtio block request: (.{1,256})`)
)

// errorPause is how long after a drive's error no other is told of: a guest can have them as fast as it likes.
const errorPause = time.Second

// readLog keeps the end of what the monitor logs, and tells of drives that fail.
func (m *machine) readLog(r io.Reader) {
	var told time.Time
	lines := bufio.NewReaderSize(r, 4<<10)
	for {
		line, more, err := lines.ReadLine()
		if err != nil {
			return
		}
		if failed := diskError.FindSubmatch(line); failed != nil && time.Since(told) > errorPause {
			told = time.Now()
			m.emit(engine.EventDiskError, string(failed[1])+": "+string(failed[2]))
		}
		if !ourCall.Match(line) {
			_, _ = m.process.log.Write(append(line, '\n'))
		}
		for more && err == nil { // what is too long is cut
			_, more, err = lines.ReadLine()
		}
	}
}
