// Package undo collects what must be taken back when something fails half way.
//
// Layer: leaf. It imports none of ours.
package undo

// Stack holds the steps back, the last one first. The zero value is ready.
type Stack struct{ steps []func() }

// Add puts a step on the stack. It stands right after what it takes back.
func (s *Stack) Add(step func()) { s.steps = append(s.steps, step) }

// Run takes everything back, the last step first, unless Release came before. It is meant for defer.
func (s *Stack) Run() {
	for len(s.steps) > 0 {
		last := len(s.steps) - 1
		step := s.steps[last]
		s.steps = s.steps[:last]
		step()
	}
}

// Release keeps what was done: Run does nothing any more.
func (s *Stack) Release() { s.steps = nil }
