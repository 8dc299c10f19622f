#![allow(warnings)]
use candle_core::*; use votive_model::stable_diffusion::*; use votive_model::*; use votive_tensor::random::*;
fn noise(shape:&[usize],salt:u64)->Tensor{ let mut d=Draws::new(salt,Stream::Init,0,0); let v:Vec<f32>=(0..shape.iter().product()).map(|_|d.normal() as f32).collect(); Tensor::from_vec(v,shape,&Device::Cpu).unwrap()}
#[test] fn v(){ let dev=Device::Cpu;
 let l=|c,a|UNetLevel{channels:c,layers:2,down_attention:a,up_attention:a,heads:4,transformer_layers:1};
 let u=UNetConfig{levels:vec![l(64,true),l(128,true)],cross_attention_dim:128,norm_num_groups:32,..Default::default()};
 let (_,p)=Params::fresh(1,&dev,|s|UNet2DConditionModel::new(s,&u)).unwrap(); println!("params {}",p.count()); let p=p.into_trainable().unwrap(); let n=p.build(|s|UNet2DConditionModel::new(s,&u)).unwrap();
 for _ in 0..20 { let t=std::time::Instant::now(); let y=n.predict(&noise(&[8,4,8,8],1),&[5.0;8],&noise(&[8,16,128],2)).unwrap(); let f=t.elapsed(); let g=y.sqr().unwrap().sum_all().unwrap().backward().unwrap(); println!("fwd {:?} total {:?}",f,t.elapsed()); }
}
