package kfac
import ("testing";"fmt";"os";"strings";"strconv")
func TestDbgPlan(t *testing.T){
	data,_ := os.ReadFile(os.Getenv("FUZZ"))
	var bs [][]byte
	for _, l := range strings.Split(string(data),"\n") { if strings.HasPrefix(l,"[]byte(") { s,_ := strconv.Unquote(l[7:len(l)-1]); bs = append(bs,[]byte(s)) } }
	n := newWildNet(bs[0])
	fmt.Println(bs)
	s, err := NewSolver(n.Cost, Declared(n))
	fmt.Println(err)
	fmt.Println(s.Plan())
	for _, x := range n.Graph.AllNodes() { fmt.Printf("%v %v\n", x, x.Shape()) }
}
