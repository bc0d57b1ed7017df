// Package fault lets tests kill a process at a named step. Only a program built with the tag "faults" has that; in every
// other one a Point does nothing, and the compiler leaves it out.
//
// Layer: leaf.
package fault
