// Command smolvm-guest is the agent inside the guest.
package main

func main() {}
