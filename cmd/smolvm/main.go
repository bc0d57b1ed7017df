// Command smolvm is the whole program: CLI and, hidden, the supervisor and launcher processes.
package main

func main() {}
