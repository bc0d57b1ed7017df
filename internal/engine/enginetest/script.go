package enginetest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
)

// Guest is what the suite's guest does with its machine. On an engine with real machines it is testguest's, on a double
// it is a few lines of the test.
type Guest interface {
	Ender
	Memory
	// Print puts a line on the console.
	Print(line string)
	// WriteDrive writes n MiB through to the drive with that id.
	WriteDrive(id string, mib int) error
}

// Ender ends the machine; its methods need not return.
type Ender interface {
	PowerOff()
	Reboot()
	Panic()
}

// Memory is what the guest keeps in its memory alone: a word.
type Memory interface {
	Remember(word string)
	Recall() string
}

// endless is what a guest floods with.
type endless struct{}

// Read implements io.Reader.
func (endless) Read(p []byte) (int, error) { return copy(p, bytes.Repeat([]byte{'x'}, len(p))), nil }

// maxLine bounds a request.
const maxLine = 4096

// Serve answers the suite on one stream until that ends. A request is a line "verb argument"; the answer is one line.
func Serve(conn io.ReadWriter, g Guest) error {
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		verb, arg, _ := strings.Cut(lines.Text(), " ")
		answer := "ok"
		switch verb {
		case "echo":
			answer = arg
		case "flood":
			if _, err := io.CopyN(conn, endless{}, 1<<40); err != nil {
				return err
			}
		case "print":
			g.Print(arg)
		case "remember":
			g.Remember(arg)
		case "recall":
			answer = g.Recall()
		case "write":
			var id string
			var mib int
			_, err := fmt.Sscan(arg, &id, &mib)
			if err == nil {
				err = g.WriteDrive(id, mib)
			}
			if err != nil {
				answer = "failed: " + strings.ReplaceAll(err.Error(), "\n", " ")
			}
		case "poweroff":
			g.PowerOff()
		case "reboot":
			g.Reboot()
		case "panic":
			g.Panic()
		default:
			answer = "failed: no verb " + verb
		}
		if _, err := fmt.Fprintln(conn, answer); err != nil {
			return err
		}
	}
	return lines.Err()
}
