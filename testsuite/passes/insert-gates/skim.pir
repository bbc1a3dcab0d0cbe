; run: insert-gates{kind=skim,small=2,theta=0.25}
; expect: metric layers-gated == 2
; expect: ops skim-recurrent == 2
; expect: ops recurrent == 0
; expect: remark gate-done a small cell of 2 units beside 6
planish-ir 1
graph @"main"(v0 "x": f32[5,1,3], v1 "w": f32[1,24,3], v2 "r": f32[1,24,6], v3 "b": f32[1,48], v4 "u": f32[1,12,6], v5 "s": f32[1,12,4], v6 "h": f32[1,1,4]) {
  v7, v8, v9 = recurrent{cell=lstm, direction=forward, activations=[sigmoid, tanh, tanh], alpha=[0.0, 0.0, 0.0], beta=[0.0, 0.0, 0.0], clip=none, linear_before_reset=false, input_forget=false} v0, v1, v2, v3 : f32[5,1,1,6], f32[1,1,6], f32[1,1,6] @"first"
  v10 = squeeze{axes=[1]} v7 : f32[5,1,6]
  v11, v12 = recurrent{cell=gru, direction=forward, activations=[sigmoid, tanh], alpha=[0.0, 0.0], beta=[0.0, 0.0], clip=none, linear_before_reset=true, input_forget=false} v10, v4, v5, _, _, v6 : f32[5,1,1,4], f32[1,1,4] @"second"
  return v12 "y", v9 "c"
}
