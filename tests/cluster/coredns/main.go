// A CoreDNS with the plugins that cluster DNS needs, and no others: all of them
// together would bring in the clients of every cloud.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/ready"
)

// The order in which a query passes the plugins.
var plugins = []string{"health", "ready", "errors", "cache", "loadbalance", "kubernetes"}

func main() {
	dnsserver.Directives = plugins
	coremain.Run()
}
