; run: fuse-epilogues,eliminate-dead
; expect: ops binary <= 4
planish-ir 1
graph @"main"(v0 "x": f32[2,3], v1 "dy": f32[2,4], v2 "w": f32[3,4], v3 "w.momentum": f32[3,4], v4 "rate": f32[]) {
  v5 = matmul{trans_a=true, trans_b=false} v0, v1 : f32[3,4]
  v6 = const f32[] [0.9]
  v7 = binary{kind=mul} v3, v6 : f32[3,4]
  v8 = binary{kind=add} v7, v5 : f32[3,4]
  v9 = binary{kind=mul} v8, v4 : f32[3,4]
  v10 = binary{kind=sub} v2, v9 : f32[3,4]
  return v10 "w.next", v8 "w.momentum.next"
}
