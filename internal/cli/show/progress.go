package show

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/smolvm/smolvm/api"
)

// showAfter is how long something may take in silence.
const showAfter = time.Second

// Progress shows how far something is: a line that changes on a terminal, short lines elsewhere if they were asked for.
type Progress struct {
	bytes bool // the numbers are bytes
	w     *os.File
	mu    sync.Mutex
	lines func(string) // where lines are printed instead
	said  string
	now   api.Progress
	bars  *mpb.Progress
	bar   *mpb.Bar
	timer *time.Timer
	over  bool
	notes []string // lines that are to stay, for when nothing is drawn any more
}

// NewProgress returns progress on w. With lines it prints lines, on a terminal too. With bytes its numbers are bytes.
func NewProgress(w *os.File, lines, bytes bool) *Progress {
	p := &Progress{w: w, bytes: bytes}
	switch {
	case lines:
		p.lines = func(s string) { _, _ = fmt.Fprintf(w, "smolvm: %s\n", s) }
	case Drawable(w):
		p.timer = time.AfterFunc(showAfter, p.show)
	default:
		p.over = true
	}
	return p
}

// IsTerminal reports whether f is one.
func IsTerminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }

// Drawable reports whether f is a terminal on which what was printed can be replaced.
func Drawable(f *os.File) bool {
	name := os.Getenv("TERM")
	return IsTerminal(f) && name != "" && name != "dumb"
}

// Screen is a text in place of what a terminal shows: each line without the rest of what stood there, and nothing below. It is
// written at once, so that nothing flickers.
func Screen(text string) string {
	return "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\n") + "\x1b[J"
}

// Report is an api.ProgressFunc.
func (p *Progress) Report(step api.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if step.Stage == api.StageAccelerator && p.lines == nil {
		p.note(step)
		return
	}
	if p.over {
		return
	}
	p.now = step
	if p.lines != nil {
		if s := p.text(); s != p.said && s != "" {
			p.said = s
			p.lines(s)
		}
	}
}

// note prints what is to stay, wherever that is. mu is held.
func (p *Progress) note(step api.Progress) {
	line := "smolvm: " + Cell(step.Detail) + "\n"
	if p.bars != nil {
		p.notes = append(p.notes, line)
		return
	}
	_, _ = fmt.Fprint(p.w, line)
}

// show begins to draw. What is drawn asks for the line; nothing that holds mu may wait for the bar.
func (p *Progress) show() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || p.bars != nil {
		return
	}
	p.bars = mpb.New(mpb.WithOutput(p.w), mpb.WithWidth(24), mpb.WithAutoRefresh())
	begin := time.Now().Add(-showAfter)
	p.bar = p.bars.New(
		0, mpb.SpinnerStyle().PositionLeft(), mpb.BarWidth(2),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return p.line(begin) })),
	)
}

// line is what stands on the terminal.
func (p *Progress) line(begin time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	b.WriteString(p.text())
	done, total := p.now.Done, p.now.Total
	switch {
	case p.bytes && total > 0:
		fmt.Fprintf(&b, " %s of %s", units.BytesSize(float64(done)), units.BytesSize(float64(total)))
	case p.bytes && done > 0:
		fmt.Fprintf(&b, " %s", units.BytesSize(float64(done)))
	case total > 0:
		fmt.Fprintf(&b, " %d%%", min(100, done*100/total))
	}
	fmt.Fprintf(&b, " (%ds)", int(time.Since(begin).Seconds()))
	return b.String()
}

// text is the step in words. mu is held.
func (p *Progress) text() string {
	switch {
	case p.now.Detail == "":
		return Cell(p.now.Stage)
	case p.now.Stage == "":
		return Cell(p.now.Detail)
	}
	return Cell(p.now.Stage + ": " + p.now.Detail)
}

// Stop removes what is drawn. It may be called again.
func (p *Progress) Stop() {
	p.mu.Lock()
	if p.timer != nil {
		p.timer.Stop()
	}
	p.over = true
	bars, bar, notes := p.bars, p.bar, p.notes
	p.bars, p.bar, p.notes = nil, nil, nil
	p.mu.Unlock()
	if bars != nil {
		bar.Abort(true)
		bars.Wait() // draws, which takes mu
	}
	_, _ = fmt.Fprint(p.w, strings.Join(notes, ""))
}
