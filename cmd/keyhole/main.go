// SPDX-License-Identifier: Apache-2.0

// Command keyhole asks a control plane to look inside a running process, and shows what is seen. `keyhole dev` is a control
// plane and an agent as well, for one machine.
package main

import "os"

func main() {
	becomeRole()
	os.Exit(newShell().execute(os.Args[1:]))
}
